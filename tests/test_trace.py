"""Traces keep no address, no control character and no long text of a stranger."""

from __future__ import annotations

import pytest

from gate.testing.clock import FakeClock
from gate.trace import SHOWN, Trace, redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 <jane.doe@example.com> unknown", "550 <***@example.com> unknown"),
        ("RCPT TO:<jane@example.com>", "RCPT TO:<***@example.com>"),
        ("\x1b[2J<script>", "?[2J<script>"),
        ("line\r\nother\u2028", "line??other?"),
    ],
)
def test_redacted(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_long_text_is_cut() -> None:
    assert len(redact("x" * 100_000)) == SHOWN


def test_steps_are_timed_from_the_start() -> None:
    clock = FakeClock(100.0)
    trace = Trace(clock)
    clock.advance(0.25)
    trace.step("dns", "mx.example.com")
    assert [(step.at_ms, step.name) for step in trace.steps] == [(250.0, "dns")]


def test_a_trace_that_is_off_keeps_nothing() -> None:
    trace = Trace(FakeClock(), on=False)
    trace.exchange("rcpt", "RCPT TO:<jane@example.com>", "250 ok")
    assert not trace.steps and not trace.transcript
