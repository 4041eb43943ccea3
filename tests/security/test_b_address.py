"""B: what is typed. The mail server's byte log is the judge of what came of it."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import re
import time
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import gate as package
from gate.address import Address, parse
from gate.cli import main as cli
from gate.reason import GateError
from gate.smtp.command import command
from gate.testing import HostRules, MailHost
from gate.testing.wire import PROBER_VERBS
from gate.token import Claims, open_token
from tests.api.ground import BEARER, Gate, gate
from tests.mailworld import World, mail_world
from tests.test_address import BOMBS, UNSUPPORTED

EVERYBODY: Final = HostRules(accept_all=True)


def in_world(scene: Callable[[World], Awaitable[None]]) -> None:
    """Run a scene before b.test, whose server knows everybody and keeps every octet."""

    async def main() -> None:
        async with mail_world({"b.test": EVERYBODY, "x.test": EVERYBODY}) as world:
            await scene(world)
            await world.landed()

    asyncio.run(main())


def octets(world: World) -> bytes:
    """Everything that the gate said to b.test."""
    return b"".join(bytes(c.received) for c in world.hosts["b.test"].connections)


# -- B1, B2, B3 ------------------------------------------------------------------------------------

INJECTED: Final = {
    "a command behind CRLF": "a@b.test\r\nDATA",
    "a command behind a bracket": "a@b.test>\r\nRSET",
    "CRLF in a quoted part": '"a\r\n"@b.test',
    "NUL": "a\0@b.test",
    "NUL behind": "a@b.test\0",
    "a final line end": "a@b.test\n",
    "a final CR": "a@b.test\r",
    "a line separator": "a\u2028@b.test",
    "a paragraph separator": "a\u2029b@b.test",
    "the next-line control": "a\u0085@b.test",
    "a vertical tab": "a\x0b@b.test",
    "a form feed in the domain": "a@b\x0c.test",
    "an escape": "\x1b[2Ja@b.test",
    "DEL": "a\x7f@b.test",
    "brackets": "<a@b.test>",
    "a bracket inside": "a>b@b.test",
    "a parameter": "a@b.test> NOTIFY=SUCCESS",
    "a second recipient": "a@b.test,c@b.test",
    "CRLF spelled out": "a%0d%0aDATA@b.test%0d%0a",
    "full-width CRLF": "a\uff0d\uff0a@b.test\r\n",
}


def test_B1__injected_text_is_no_address_and_no_host_hears_of_it() -> None:
    async def scene(world: World) -> None:
        for name, email in INJECTED.items():
            assert await world.reason(email) == "invalid_email", name
        assert world.hosts["b.test"].accepted == 0
        assert not world.zones.queries

    in_world(scene)


@pytest.mark.parametrize("name", INJECTED)
def test_B1__the_writer_refuses_it_too(name: str) -> None:
    """It does not trust whoever calls it."""
    email = INJECTED[name]
    for verb in ("MAIL", "RCPT", "EHLO"):
        try:
            line = command(verb, email, smtputf8=True)
        except GateError:
            continue
        assert line.count(b"\r\n") == 1 and line.endswith(b"\r\n")
        assert line.count(b"<") <= 1 and line.count(b">") <= 1
        assert not [o for o in line[:-2] if o < 0x20 or o == 0x7F]


@examples(max_examples=300)
@given(st.text(st.characters(), max_size=60), st.text(st.characters(), max_size=30))
def test_B1__whatever_is_taken_is_one_line_of_safe_octets(local: str, domain: str) -> None:
    found = parse(f"{local}@{domain}")
    if isinstance(found, Address):
        line = command("RCPT", found.reveal(), smtputf8=True)
        assert line.count(b"\r") == line.count(b"\n") == 1
        assert line.count(b"<") == line.count(b">") == 1
        assert not [octet for octet in line[:-2] if octet < 0x20 or octet == 0x7F]


NAMES: Final = [
    ("probe", "helo", "x\\r\\nQUIT"),
    ("probe", "helo", "x y.test"),
    ("probe", "helo", "<x.test>"),
    ("probe", "helo", "x.test\\u0000"),
    ("probe", "mail_from", "a@b.test>\\r\\nRCPT TO:<c@d.test"),
    ("probe", "mail_from", "a b@c.test"),
    ("probe", "mail_from", "a@b.test SIZE=1"),
]


@pytest.mark.parametrize(("section", "key", "value"), NAMES, ids=[row[2] for row in NAMES])
def test_B2__our_own_names_are_looked_at_before_the_start(
    section: str, key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(f'[{section}]\n{key} = "{value}"\n')
    assert cli(["serve", "--config", str(path)]) == 2
    assert f"{section}.{key}" in capsys.readouterr().err


def test_B2__the_name_of_each_source_is_looked_at_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gate.toml"
    path.write_text('[[egress.address]]\nip = "127.0.0.9"\nhelo = "x\\r\\nQUIT"\n')
    assert cli(["serve", "--config", str(path)]) == 2
    assert "egress.address.helo" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["DATA", "BDAT", "VRFY", "EXPN", "ETRN", "AUTH", "TURN", "SEND"])
def test_B3__there_is_no_way_to_say_another_verb(verb: str) -> None:
    with pytest.raises(GateError):
        command(verb, "a@b.test")


def test_B3__every_listener_of_every_test_counts_what_is_none_of_the_eight() -> None:
    """The kit complains of each wrong line when it closes: so all tests are this test."""
    assert set(PROBER_VERBS) == {
        *("EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "RSET", "NOOP", "QUIT"),
    }

    async def main() -> None:
        async with MailHost(EVERYBODY) as host:
            reader, writer = await asyncio.open_connection(*host.address)
            await reader.readline()
            writer.write(b"DATA\r\n")
            await reader.readline()
            writer.close()
            await writer.wait_closed()

    with pytest.raises(AssertionError, match="DATA"):
        asyncio.run(main())


# -- B4, B5, B6 ------------------------------------------------------------------------------------

SPECIAL: Final = set('@<>;:,."()[]\\% \r\n\t')


def makers() -> list[str]:
    """Every character that becomes, or holds, a special one when it is normalised."""
    found = []
    for code in range(0x80, 0x30000):
        character = chr(code)
        if 0xD800 <= code <= 0xDFFF:
            continue
        for form in ("NFC", "NFKC"):
            if set(unicodedata.normalize(form, character)) & SPECIAL:
                found.append(character)
                break
    return found


def test_B4__no_character_becomes_a_special_one_on_its_way() -> None:
    """All of them, in a local part and in a domain: refused, or as themselves on the wire."""
    every = makers()
    assert {"\u037e", "\uff20", "\ufe6b", "\uff1c", "\ufe64", "\uff02", "\u2024"} <= set(every)
    for character in every:
        for typed in (f"a{character}b@c.test", f"{character}a@c.test", f"a@b{character}c.test"):
            found = parse(typed)
            if isinstance(found, Address):
                local, _, domain = typed.rpartition("@")
                plain = parse(f"a@{unicodedata.normalize('NFKC', domain)}")
                assert found.local in (local, unicodedata.normalize("NFC", local))
                assert not set(found.local) & SPECIAL - {".", "%"}
                assert isinstance(plain, Address) and plain.domain == found.domain


def test_B4__what_is_taken_is_on_the_wire_as_it_was_typed() -> None:
    async def scene(world: World) -> None:
        for character in ("\u037e", "\uff20", "\uff1c", "\u2024", "\u2488", "\u3000"):
            await world.check(f"a{character}b@b.test")
        said = octets(world)
        assert b";" not in said and said.count(b"@") == said.count(b"<") - said.count(b"<>")

    in_world(scene)


FOLDED: Final = [
    ("K@x.test", "\u212a@x.test"),
    ("K@x.test", "k@x.test"),
    ("i@x.test", "\u0130@x.test"),
    ("s@x.test", "\u017f@x.test"),
    ("ss@x.test", "\xdf@x.test"),
    ("\xe5@x.test", "\u212b@x.test"),
    ("fi@x.test", "\ufb01@x.test"),
    ("2@x.test", "\xb2@x.test"),
    ("a@x.test", "\uff41@x.test"),
]


def test_B5__letters_that_fold_together_are_two_people() -> None:
    """Two keys in memory, two dialogues, two recipients; NFC's own pairs (Å) are the exception."""

    async def scene(world: World) -> None:
        for one, other in FOLDED:
            first, second = parse(one), parse(other)
            assert isinstance(first, Address)
            if isinstance(second, Address) and second != parse(unicodedata.normalize("NFC", one)):
                memory = world.checker._memory
                assert memory.mark("shop", first.exact) != memory.mark("shop", second.exact)

        for email in ("K@x.test", "k@x.test", "\u017f@x.test", "s@x.test", "ß@x.test"):
            await world.check(email)
        asked = [line for line in world.recipients("x.test") if "k4w8zq" not in line]
        assert len(set(asked)) == len(asked)
        assert {"RCPT TO:<K@x.test>", "RCPT TO:<k@x.test>", "RCPT TO:<s@x.test>"} & set(asked)

    in_world(scene)


def test_B6__a_look_alike_domain_keeps_its_own_name() -> None:
    """A suggestion, a flag, a token for what was typed; the local part goes to nobody."""
    imitation = "user@gm\u0430il.com"

    async def main() -> None:
        async with gate() as running:
            told = (await running.check(imitation)).json()
            assert told["domain"] == "xn--gmil-63d.com"
            assert told["did_you_mean"] == "user@gmail.com"
            assert (told["decision"], told["because"]) == ("warn", "possible_typo")
            claims = open_token(running.engine.keys, told["token"], running.engine.wall())
            assert isinstance(claims, Claims)
            hashed = running.engine.keys.address_hash
            assert claims.address == hashed("main", "user@xn--gmil-63d.com")
            assert claims.address != hashed("main", "user@gmail.com")
            page = (await running.page(imitation)).json()
            assert page["did_you_mean"] == "user@gmail.com"
            other = await running.siteverify(response=told["token"], email="user@gmail.com")
            assert other["error-codes"] == ["email-mismatch"]

    asyncio.run(main())


# -- B7: how much time text may take ---------------------------------------------------------------

LONG: Final = {
    **BOMBS,
    "labels one octet too long": "a@" + ".".join(["b" * 64] * 3) + ".test",
    "127 labels": "a@" + ".".join(["a"] * 127),
    "one letter, many times": "a" * 100_000 + "@b.test",
    "nested quantifiers": "a" * 24 + "!" * 24 + "@",
    "zalgo": "a@" + ("z" + "\u0300" * 30) * 7 + ".test",
    "right to left": "a@" + "\u05d0" * 100 + ".test",
}


@pytest.mark.parametrize("name", LONG)
def test_B7__no_text_takes_five_milliseconds_to_be_read(name: str) -> None:
    def once() -> float:
        begun = time.thread_time()
        parse(LONG[name])
        return time.thread_time() - begun

    assert min(once() for _ in range(5)) < 0.005


def test_B7__nor_a_request_that_holds_it() -> None:
    """The whole of it: head, body, verdict, token, log line; what is too long is 413 at once."""

    async def cost(running: Gate, email: str) -> tuple[float, int]:
        body = json.dumps({"email": email}, ensure_ascii=False).encode()
        headers = {**BEARER, "content-type": "application/json"}
        request = running.client.build_request("POST", "/v1/check", content=body, headers=headers)
        begun = time.thread_time()
        answer = await running.client.send(request)
        spent = time.thread_time() - begun
        assert answer.status_code == (413 if len(body) > 8192 else 200)
        return spent, answer.status_code

    async def main() -> None:
        async with gate() as running:
            usual = min([await cost(running, "jane@nomx0.test") for _ in range(20)])[0]
            for name, email in LONG.items():
                if parse(email).__class__ is not Address:
                    spent = min([await cost(running, email) for _ in range(3)])[0]
                    assert spent - usual < 0.005, name

    asyncio.run(main())


PUMPED: Final = [
    "a",
    "a.",
    "a-",
    "-",
    ".",
    "@",
    "a@",
    " ",
    "0",
    "1.",
    "xn--",
    "\r\n",
    "a ",
    "(",
    "%41",
]


def expressions() -> dict[str, re.Pattern[Any]]:
    """Every regular expression of the gate's that a stranger's text may meet."""
    found = {}
    for module in pkgutil.walk_packages(package.__path__, "gate."):
        if not module.name.startswith(("gate.testing", "gate.cli", "gate.smtp.explain")):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    found[f"{module.name}.{name}"] = value
    return found


def test_B7__no_expression_of_ours_goes_back_and_forth() -> None:
    """Each matched whole with 8 KiB of what makes such ones slow, and searched for in one KiB."""
    every = expressions()
    assert len(every) > 20
    for name, pattern in every.items():
        for piece in PUMPED:
            text: Any = (piece * 8192)[:8192] + "!"
            if isinstance(pattern.pattern, bytes):
                text = text.encode()
            spent = [1.0]
            while min(spent) >= 0.02 and len(spent) < 10:  # again where the machine was busy
                begun = time.thread_time()
                pattern.fullmatch(text)
                pattern.search(text[-1024:])
                spent.append(time.thread_time() - begun)
            assert min(spent) < 0.02, (name, piece)


# -- B8, B9, B10 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_B8__a_form_that_is_not_taken_is_named_and_nobody_is_asked(name: str) -> None:
    typed, position = UNSUPPORTED[name]

    async def main() -> None:
        async with gate() as running:
            told = (await running.check(typed)).json()
            assert (told["result"], told["reason"]) == ("undeliverable", "invalid_email")
            assert (told["detail"], told["position"]) == ("unsupported_form", position)
            assert told["token"] is None

    asyncio.run(main())


def test_B8__there_are_thirty_of_them() -> None:
    assert len(UNSUPPORTED) >= 30


BODIES: Final = {
    "a lone surrogate": b'{"email":"\\ud800@x"}',
    "NaN": b'{"email":NaN}',
    "minus Infinity": b'{"email":"a@x","timeout_ms":-Infinity}',
    "a key twice": b'{"email":"a@x","email":"b@x"}',
    "a key twice, once escaped": b'{"email":"a@x","\\u0065mail":"b@x"}',
    "a hundred thousand brackets": b"[" * 8192,
    "brackets in a value": b'{"email":' + b"[" * 8000,
    "braces": b'{"a":' * 1600,
    "5,000 digits": b"1" * 5000,
    "5,000 digits in a value": b'{"email":"a@x","max_age":' + b"1" * 5000 + b"}",
    "a huge exponent": b'{"email":"a@x","max_age":1e999999999}',
    "a number with an exponent": b'{"email":"a@x","timeout_ms":1e400}',
    "UTF-16": '{"email":"a@x"}'.encode("utf-16"),
    "UTF-8 that is none": b'{"email":"\xff\xfe@x"}',
    "an overlong slash": b'{"email":"\xc0\xaf@x"}',
    "two documents": b'{"email":"a@x"}{"email":"b@x"}',
    "a comment": b'{"email":"a@x"/* b */}',
    "an unknown key": b'{"email":"a@x","__proto__":{}}',
    "a list of addresses": b'{"email":["a@x","b@x"]}',
    "nothing": b"",
}


@pytest.mark.parametrize("path", ["/v1/check", "/v1/prefetch"])
def test_B9__a_body_that_parsers_disagree_about_is_400(path: str) -> None:
    async def main() -> None:
        async with gate() as running:
            for name, body in BODIES.items():
                headers = {**BEARER, "content-type": "application/json"}
                begun = time.thread_time()
                answer = await running.client.post(path, content=body, headers=headers)
                assert time.thread_time() - begun < 0.05, name
                assert answer.status_code == 400, name
                assert answer.headers["content-type"] == "application/problem+json"

    asyncio.run(main())


def test_B9__a_hundred_thousand_brackets_are_too_large_before_they_are_read() -> None:
    async def main() -> None:
        async with gate() as running:
            headers = {**BEARER, "content-type": "application/json"}
            answer = await running.client.post("/v1/check", content=b"[" * 100_000, headers=headers)
            assert answer.status_code == 413

    asyncio.run(main())


TRICKS: Final = {
    "bidi override": '"<script>\u202e"@x',
    "markup": "<img src=x onerror=alert(1)>@b.test",
    "zero width": "a\u200b\u200d@paypal\u2060.test",
    "a log line": 'a\n{"level":"x"}@b.test',
    "a terminal": "\x1b]0;owned\x07@b.test",
}


@pytest.mark.parametrize("name", TRICKS)
def test_B10__a_page_is_never_shown_what_it_sent(name: str) -> None:
    """Problems and browser answers repeat nothing; a server gets its own text back as JSON."""
    typed = TRICKS[name]
    odd = [c for c in typed if not (c.isalnum() or c in "@. ")]

    async def main() -> None:
        async with gate() as running:
            page = await running.page(typed)
            assert page.status_code == 200
            assert not [c for c in odd if c in page.text and c not in '"{}:_,-?/()=\n']
            assert "script" not in page.text and "onerror" not in page.text
            for body in (
                {"email": typed, typed[:5]: 1},
                {"email": [typed]},
                {"email": "a@b.test", "action": typed},
                {"email": "a@b.test", "remoteip": typed},
            ):
                wrong: Any = await running.client.post("/v1/check", json=body, headers=BEARER)
                assert wrong.status_code == 400
                assert not [c for c in odd if ord(c) > 0x7F and c in wrong.text]
                assert "script" not in wrong.text and "onerror" not in wrong.text
            server = await running.check(typed)
            assert server.headers["content-type"] == "application/json"
            assert server.headers["x-content-type-options"] == "nosniff"

    asyncio.run(main())
