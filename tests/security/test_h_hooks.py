"""H: calls that say they come from a platform. The answer is judged, and how long it took."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from gate.testing import FakeClock
from tests.hooks.ground import (
    BY_PLATFORM,
    EVERY,
    NOW,
    REFUSES,
    Case,
    configured,
    hooked,
    resigned,
    webhook_headers,
)
from tests.hooks.test_proofs import SIGNATURES

GENERIC: Final = BY_PLATFORM["generic"]
SIGNED: Final = [case for case in EVERY if case.signed]
OPEN: Final = (200, 204)


def refused(case: Case, status: int) -> bool:
    """401 is what a call that is not proved gets, from every platform's adapter."""
    return status == 401


@pytest.mark.parametrize("case", SIGNED, ids=lambda case: case.platform)
def test_H1__a_body_that_was_touched_is_401(case: Case) -> None:
    middle = len(case.body) // 2
    touched = {
        "one octet": case.body[:middle] + bytes([case.body[middle] ^ 1]) + case.body[middle + 1 :],
        "white space": case.body + b"\n",
        "a space inside": case.body.replace(b":", b": ", 1),
        "compressed": gzip.compress(case.body),
        "nothing": b"",
    }

    async def main() -> None:
        async with hooked(case.hook) as running:
            good = await running.send(case)
            assert good.status_code == case.allow["status"]
            for name, body in touched.items():
                answer = await running.send(case, body=body)
                assert refused(case, answer.status_code), name

    asyncio.run(main())


def test_H1__two_signature_headers_are_none() -> None:
    good = webhook_headers(GENERIC.body)
    wrong = {**good, "webhook-signature": "v1," + "A" * 43 + "="}

    async def main() -> None:
        async with hooked(GENERIC.hook) as running:
            client = running.gate.client
            for first, second in ((good, wrong), (wrong, good), (good, good)):
                headers = [*first.items(), ("webhook-signature", second["webhook-signature"])]
                headers += [("content-type", "application/json")]
                answer = await client.post(
                    "/v1/hooks/generic", content=GENERIC.body, headers=headers
                )
                assert answer.status_code == 401

    asyncio.run(main())


def test_H2__a_signature_header_that_is_none_is_401_and_soon() -> None:
    """Malformed, foreign, endless, beyond ASCII: never 500."""

    async def main() -> None:
        async with hooked(GENERIC.hook) as running:
            await running.send(GENERIC)
            for name, text in {**SIGNATURES, "two versions": "v1a,x v1,y"}.items():
                headers = {**GENERIC.headers, **webhook_headers(GENERIC.body)}
                raw = [(key.encode(), value.encode()) for key, value in headers.items()]
                raw = [pair for pair in raw if pair[0].lower() != b"webhook-signature"]
                raw.append((b"webhook-signature", text.encode("utf-8")))
                request = running.gate.client.build_request(
                    "POST", "/v1/hooks/generic", content=GENERIC.body, headers=raw
                )
                begun = time.thread_time()
                answer = await running.gate.client.send(request)
                assert time.thread_time() - begun < 0.02, name  # the client's own time is in it
                assert answer.status_code == 401, name

    asyncio.run(main())


TIMES: Final = """
1e9 1767225600.0 1674087231.9 nan inf -inf -1767225600 +1767225600 0x69 1767225600000 176722560
1_767_225_600 1767225600e0 0
""".split()


def test_H3__a_time_that_is_no_whole_seconds_or_not_of_now_is_401() -> None:
    async def main() -> None:
        async with hooked(GENERIC.hook) as running:
            for text in TIMES:
                headers = {**GENERIC.headers, **webhook_headers(GENERIC.body)}
                headers["webhook-timestamp"] = text
                assert (await running.send(GENERIC, headers=headers)).status_code == 401, text
            for away, status in ((0, 200), (299, 200), (-299, 200), (301, 401), (-301, 401)):
                signed = webhook_headers(GENERIC.body, at=NOW + away, message=f"m{away + 500}")
                headers = {**GENERIC.headers, **signed}
                assert (await running.send(GENERIC, headers=headers)).status_code == status, away

    asyncio.run(main())


def test_H4__the_same_message_is_acted_on_once_also_later_and_after_a_restart(
    tmp_path: Path,
) -> None:
    """Stamped five minutes ahead; sent now, 4:59 and 9:59 later, to three lives of the gate."""
    config = configured(GENERIC.hook, store={"url": f"sqlite:{tmp_path / 'gate.db'}"})
    ahead = {**GENERIC.headers, **webhook_headers(GENERIC.body, at=NOW + 300, message="same")}
    outcomes: Counter[str] = Counter()

    async def life(*moments: float) -> None:
        for moment in moments:
            wall = FakeClock(NOW + moment)
            async with hooked(config=config, mail=REFUSES, wall=wall) as running:
                answer = await running.send(GENERIC, headers=ahead)
                assert answer.status_code == 200, moment
                assert answer.json()["decision"] == "block"
            outcomes.update(line["outcome"] for line in running.gate.lines())

    asyncio.run(life(0.0, 299.0, 599.0))
    assert outcomes == {"generic: deny": 1, "generic: repeated": 2}


@pytest.mark.parametrize("name", ["a.1", "a.1767225600", "", "a b", "x" * 65, "é", "a/../b"])
def test_H5__an_id_that_could_be_cut_in_two_ways_is_401(name: str) -> None:
    async def main() -> None:
        async with hooked(GENERIC.hook) as running:
            headers = {**GENERIC.headers, **webhook_headers(GENERIC.body, message=name)}
            raw = [(key.encode(), value.encode("utf-8")) for key, value in headers.items()]
            answer = await running.gate.client.post(
                "/v1/hooks/generic", content=GENERIC.body, headers=raw
            )
            assert answer.status_code == 401

    asyncio.run(main())


async def burst(number: int) -> Counter[str]:
    """So many messages at once, every tenth sent twice; what was done about them."""
    async with hooked(GENERIC.hook) as running:

        async def send(index: int) -> int:
            body = GENERIC.body.replace(b"jane", b"u%d" % index)
            signed = webhook_headers(body, message=f"m{index}")
            answer = await running.send(GENERIC, body=body, headers={**GENERIC.headers, **signed})
            return answer.status_code

        wanted = [*range(number), *range(0, number, 10)]
        statuses: list[int] = []
        for start in range(0, len(wanted), 100):
            statuses += await asyncio.gather(*map(send, wanted[start : start + 100]))
        assert set(statuses) == {200}  # never 429 and never 5xx: a platform would turn people away
    return Counter(line["outcome"].partition(" ")[2] for line in running.gate.lines())


def test_H6__of_a_burst_each_message_is_acted_on_once_and_none_is_lost() -> None:
    outcomes = asyncio.run(burst(500))
    repeated = outcomes.pop("repeated")
    assert (sum(outcomes.values()), repeated) == (500, 50)


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_H6__of_ten_thousand() -> None:
    outcomes = asyncio.run(burst(10_000))
    repeated = outcomes.pop("repeated")
    assert (sum(outcomes.values()), repeated) == (10_000, 1_000)


def test_H6__a_body_beyond_64_kib_is_413() -> None:
    async def main() -> None:
        async with hooked(GENERIC.hook) as running:
            body = b'{"data":{"email":"' + b"x" * 65_536 + b'"}}'
            answer = await running.send(GENERIC, body=body, headers=resigned(GENERIC, body))
            assert answer.status_code == 413

    asyncio.run(main())
