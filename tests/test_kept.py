"""Which answers are found again, by whom, and for how long."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from gate import kept
from gate.answer import Answer
from gate.api.unasked import unasked
from gate.budget import CHECK_MEMORY
from gate.kept import KeptAnswers
from gate.reason import Reason
from gate.settings import Site

SITE = Site(name="main", site_key="pk_a", secret_hash="")


def answer(clock: Callable[[], float]) -> Answer:
    return unasked("jane@a.test", SITE, Reason.TIMEOUT, clock=clock, wall=clock, suggestion=None)


def test_only_its_own_site_finds_an_answer_and_for_an_hour() -> None:
    now = [0.0]
    answers = KeptAnswers(lambda: now[0])
    given = answer(lambda: now[0])
    answers.put("main", given)
    assert answers.find(given.id, "main") == given
    assert answers.find(given.id, "other") is None
    assert answers.find("chk_unknown", "main") is None
    now[0] = CHECK_MEMORY
    assert answers.find(given.id, "main") is None


def test_what_is_too_old_is_let_go() -> None:
    now = [0.0]
    answers = KeptAnswers(lambda: now[0])
    for _ in range(10):
        answers.put("main", answer(lambda: now[0]))
    now[0] = CHECK_MEMORY
    for _ in range(10):
        answers.put("main", answer(lambda: now[0]))
    assert len(answers) == 10


def test_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT_CHECKS", 3)
    answers = KeptAnswers(lambda: 0.0)
    given = [answer(lambda: 0.0) for _ in range(4)]
    for one in given[:3]:
        answers.put("main", one)
    answers.put("main", given[0])
    answers.put("main", given[3])
    found = [one for one in given if answers.find(one.id, "main")]
    assert found == [given[0], given[2], given[3]]


def test_the_garbage_collector_has_nothing_to_walk() -> None:
    given = answer(lambda: 0.0)
    assert not gc.is_tracked(given) and not gc.is_tracked(given.address)
    assert not gc.is_tracked(given.verdict) and not gc.is_tracked(given.flags)
