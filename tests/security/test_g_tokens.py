"""G: tokens that are forged, spent twice, out of time, or somebody else's."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gate.testing import FakeClock
from gate.token import Claims, Keys, TokenFault, mint, open_token
from tests.api.ground import (
    ORIGIN,
    OTHER_ORIGIN,
    OTHER_SECRET,
    OTHER_SITEKEY,
    SECRET,
    SITEKEY,
    Gate,
    gate,
    settings,
    site,
)
from tests.security.process import gate_process
from tests.security.timing import answers_cannot_be_told_apart, cannot_be_told_apart
from tests.test_token import CLAIMS, KEYS, NOW, b64, forgeries

JANE = "jane@inbox.test"


async def token_of(running: Gate, email: str = JANE, **more: Any) -> str:
    token: str = (await running.page(email, **more)).json()["token"]
    return token


# -- G1 --------------------------------------------------------------------------------------------


def test_G1__each_bit_of_a_hundred_tokens_is_sealed() -> None:
    for number in range(100):
        claims = msgspec.structs.replace(CLAIMS, cdata="x" * (number % 7), check=f"chk_{number}")
        octets = bytearray(mint(KEYS, claims).encode())
        for place, bit in product(range(len(octets)), range(8)):
            octets[place] ^= 1 << bit
            assert open_token(KEYS, octets.decode("latin-1"), NOW) is TokenFault.INVALID
            octets[place] ^= 1 << bit


def test_G1__every_forgery_gets_the_same_answer() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_of(running)
            _, kid, payload, seal = token.split(".")
            forged = {name: text for name, text in forgeries().items() if text.isprintable()}
            forged |= {
                "no seal": f"v1.{kid}.{payload}.",
                "padded": f"v1.{kid}.{payload}.{seal}=",
                "cut": token[:-1],
                "longer": token + "A",
                "standard alphabet": f"v1.{kid}.{payload}.{seal[:-2]}+/",
                "another kid": f"v1.{b64(b'other')}.{payload}.{seal}",
                "a JWT": b64(b'{"alg":"none"}') + f".{payload}.",
            }
            told = {}
            for name, text in forged.items():
                if 0 < len(text) < 5000 and text.isascii():
                    answer = await running.siteverify(response=text)
                    assert answer["success"] is False
                    told[name] = (tuple(answer["error-codes"]), len(answer))
            assert set(told.values()) == {(("invalid-input-response",), len(answer))}
            assert len(told) > 20
            assert (await running.siteverify(response=token))["success"]

    asyncio.run(main())


# -- G2 --------------------------------------------------------------------------------------------


def test_G2__of_a_hundred_redemptions_at_once_one_succeeds(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with gate(settings(store={"url": url})) as running:
            token = await token_of(running)
            told = await asyncio.gather(*(running.siteverify(response=token) for _ in range(100)))
            assert Counter(answer["success"] for answer in told) == {True: 1, False: 99}
            codes = {tuple(answer["error-codes"]) for answer in told if not answer["success"]}
            assert codes == {("timeout-or-duplicate",)}

    for url in ("memory:", f"sqlite:{tmp_path / 'gate.db'}"):
        asyncio.run(main(url))


def test_G2__one_idempotency_key_five_times_is_one_success_told_five_times() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_of(running)
            told = await asyncio.gather(
                *(running.siteverify(response=token, idempotency_key="order") for _ in range(5))
            )
            assert all(answer == told[0] for answer in told) and told[0]["success"]
            other = await running.siteverify(response=token, idempotency_key="another")
            assert other["error-codes"] == ["timeout-or-duplicate"]

    asyncio.run(main())


def test_G2__a_killed_gate_still_knows_what_was_spent(tmp_path: Path) -> None:
    def verify(client: httpx.Client, token: str) -> dict[str, Any]:
        answer = client.post("/v1/siteverify", data={"secret": SECRET, "response": token})
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    def fresh(client: httpx.Client) -> str:
        data = {"sitekey": SITEKEY, "email": JANE}
        asked = client.post("/v1/check", data=data, headers={"origin": ORIGIN})
        token: str = asked.json()["token"]
        return token

    store = f"sqlite:{tmp_path / 'gate.db'}"
    with gate_process(tmp_path, store=store) as running:
        spent, kept = fresh(running.client), fresh(running.client)
        assert verify(running.client, spent)["success"]
        running.kill()
    with gate_process(tmp_path, store=store) as running:
        assert verify(running.client, spent)["error-codes"] == ["timeout-or-duplicate"]
        assert verify(running.client, kept)["success"]


# -- G3 --------------------------------------------------------------------------------------------

MOMENTS = {
    0.0: None,
    299.9: None,
    305.1: "timeout-or-duplicate",
    -4.9: None,
    -5.1: "invalid-input-response",
    -600.0: "invalid-input-response",
}


@pytest.mark.parametrize(("after", "code"), MOMENTS.items())
def test_G3__the_edges_of_its_life(after: float, code: str | None) -> None:
    async def main() -> None:
        wall = FakeClock()
        async with gate(wall=wall) as running:
            token = await token_of(running)
            wall.advance(after)
            answer = await running.siteverify(response=token)
            assert answer["error-codes"] == ([] if code is None else [code])

    asyncio.run(main())


def test_G3__a_clock_that_jumps_ten_minutes_back_revives_nothing() -> None:
    async def main() -> None:
        wall = FakeClock()
        async with gate(wall=wall) as running:
            spent = await token_of(running)
            assert (await running.siteverify(response=spent))["success"]
            for step in (-600.0, 601.0, -4.0):
                wall.advance(step)
                assert not (await running.siteverify(response=spent))["success"]

    asyncio.run(main())


# -- G4, G5 ----------------------------------------------------------------------------------------


def test_G4__a_token_is_worth_nothing_at_another_site_or_in_another_environment() -> None:
    async def main() -> None:
        async with gate() as running:
            theirs = await token_of(running, sitekey=OTHER_SITEKEY, origin=OTHER_ORIGIN)
            wrong = await running.siteverify(response=theirs)
            assert wrong["error-codes"] == ["invalid-input-response"]
            assert (await running.siteverify(response=theirs, secret=OTHER_SECRET))["success"]
            keys = running.engine.keys
            now = running.engine.wall()
            mine = await token_of(running)
            claims = open_token(keys, mine, now)
            assert isinstance(claims, Claims)
            test = mint(keys, msgspec.structs.replace(claims, env="test"))
            assert (await running.siteverify(response=test))["error-codes"] == [
                "invalid-input-response"
            ]

    asyncio.run(main())


@pytest.mark.parametrize("purpose", ["address", "webhook", "cache", "development", "site-key", ""])
def test_G4__no_other_key_of_the_site_seals_a_token(purpose: str) -> None:
    body = mint(KEYS, CLAIMS).rpartition(".")[0]
    for site_name in ("shop", "", "token"):
        if (site_name, purpose) != ("shop", "token"):
            seal = hmac.digest(KEYS.derive(site_name, purpose), body.encode(), "sha256")
            assert open_token(KEYS, f"{body}.{b64(seal)}", NOW) is TokenFault.INVALID


def test_G4__another_master_key_is_another_world() -> None:
    assert open_token(Keys(bytes(32)), mint(KEYS, CLAIMS), NOW) is TokenFault.INVALID


OTHERS = """
john@inbox.test Jane.doe@inbox.test janedoe@inbox.test jane.doe+x@inbox.test JANE.DOE@inbox.test
jane.doe@inbox.test.evil.test jane.doe@catchall.test jane-doe@inbox.test nonsense
""".split()


def test_G5__another_address_with_it_is_a_mismatch_and_spends_nothing() -> None:
    async def main() -> None:
        sites = [site(policy={"undeliverable": "allow"})]
        async with gate(settings(sites)) as running:
            token = await token_of(running, "jane.doe@inbox.test")
            for email in OTHERS:
                answer = await running.siteverify(response=token, email=email)
                assert answer["error-codes"] == ["email-mismatch"], email
            told = await running.siteverify(response=token, email="jane.doe@INBOX.test")
            assert told["success"]

    asyncio.run(main())


# -- G6 --------------------------------------------------------------------------------------------


def test_G6__a_bad_seal_takes_as_long_as_an_unknown_site() -> None:
    token = mint(KEYS, CLAIMS)
    body = token.rpartition(".")[0]
    bad_seal = f"{body}.{b64(bytes(32))}"
    unknown = mint(Keys(bytes(32)), msgspec.structs.replace(CLAIMS, site="nope"))
    assert len(unknown) == len(bad_seal)

    def opens(text: str) -> None:
        assert open_token(KEYS, text, NOW) is TokenFault.INVALID

    cannot_be_told_apart(lambda: opens(bad_seal), lambda: opens(unknown))


def test_G6__a_seal_wrong_in_its_first_octet_takes_as_long_as_in_its_last() -> None:
    body, _, seal = mint(KEYS, CLAIMS).rpartition(".")
    first = f"{body}.{'A' if seal[0] != 'A' else 'B'}{seal[1:]}"
    last = f"{body}.{seal[:-2]}{'A' if seal[-2] != 'A' else 'B'}{seal[-1]}"
    cannot_be_told_apart(lambda: open_token(KEYS, first, NOW), lambda: open_token(KEYS, last, NOW))


def test_G6__nor_does_a_whole_call_tell() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_of(running)
            body = token.rpartition(".")[0]
            bad_seal = f"{body}.{b64(bytes(32))}"
            claims = open_token(running.engine.keys, token, running.engine.wall())
            assert isinstance(claims, Claims)
            unknown = mint(Keys(bytes(32)), msgspec.structs.replace(claims, site="nope"))
            assert len(unknown) == len(token)
            await answers_cannot_be_told_apart(
                lambda _: running.siteverify(response=bad_seal),
                lambda _: running.siteverify(response=unknown),
                times=500,
            )

    asyncio.run(main())
