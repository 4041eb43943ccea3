"""No address at rest or in passing: a canary is sent through every way in, then looked for."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from gate import metrics
from gate.flight import Flights
from tests.api.ground import Gate, gate, settings

CANARY = "canary-7f3a"
DOMAINS = (
    "inbox.test",
    "catchall.test",
    "grey.test",
    "blocked.test",
    "garbage.test",
    "nxdomain.test",
    "servfail.test",
)


async def send_everywhere(running: Gate) -> None:
    for domain in DOMAINS:
        email = f"{CANARY}@{domain}"
        answer = (await running.check(email, explain=True)).json()
        await running.page(email)
        await running.siteverify(email=email)
        await running.siteverify(response=answer["token"], email=email)
        await running.siteverify(response=answer["token"], email=f"{CANARY}-2@{domain}")
    for wrong in (f"{CANARY}@", f"{CANARY}\r\nDATA@inbox.test", f'"{CANARY}"@inbox.test'):
        await running.check(wrong)
    await running.client.get("/v1/check", params={"email": f"{CANARY}@inbox.test"})
    await running.client.post("/v1/check", content=b'{"email": "' + CANARY.encode())


def test_no_address_in_log_metrics_or_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    config = settings(store={"url": f"sqlite:{tmp_path / 'gate.db'}"})

    async def main() -> bytes:
        async with gate(config) as running:
            await send_everywhere(running)
        return bytes(running.written)

    with caplog.at_level(logging.DEBUG, logger="gate"):
        written = asyncio.run(main())
    assert written.count(b"\n") > 4 * len(DOMAINS)
    places = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    places |= {
        "decision lines": written,
        "log": caplog.text.encode(),
        "metrics": metrics.render(),
        "standard output and error": "".join(capfd.readouterr()).encode(),
    }
    assert "gate.db" in places
    assert [name for name, octets in places.items() if CANARY.encode() in octets] == []


def test_no_address_in_the_report_of_a_fault_of_our_own(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(Flights, "_investigate", fails)

    async def main() -> dict[str, object]:
        async with gate() as running:
            found: dict[str, object] = (await running.check(f"{CANARY}@inbox.test")).json()
            return found

    answer = asyncio.run(main())
    assert (answer["reason"], answer["decision"]) == ("unexpected_error", "allow")
    assert "out of order" in caplog.text
    assert CANARY not in caplog.text
