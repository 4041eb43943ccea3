"""The platforms' own libraries against the gate: what they sign is believed, what we sign holds.

Python's come with the development extra. Node's are installed into .cache at the versions that
sdk/package-lock.json pins; without npm those tests are skipped.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from workos.actions import Actions, _compute_signature

from gate.hooks.adapter import Call, Refused
from gate.hooks.proofs import standard_webhook, webhook_key
from tests.hooks.ground import (
    ACCEPTS,
    BY_PLATFORM,
    REFUSES,
    WEBHOOK_SECRET,
    Case,
    hooked,
    webhook_headers,
)
from tests.hooks.packages import installed

pytestmark = pytest.mark.timeout(180)  # the first run installs

PACKAGES_OF = "sdk"
WORKOS, SUPABASE, GENERIC = (BY_PLATFORM[name] for name in ("workos", "supabase", "generic"))
WORKOS_SECRET = WORKOS.hook["secrets"][0]


class Node:
    """One Node process that speaks the SDKs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, **request: Any) -> Any:
        """The value, or the text of the error."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer.get("value", answer.get("error"))


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    home, runtime = installed(PACKAGES_OF)
    with subprocess.Popen(
        [runtime, "sdk.mjs"],
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        yield Node(process)
        assert process.stdin
        process.stdin.close()


# -- Standard Webhooks (Supabase, generic) ---------------------------------------------------------


def believed(headers: dict[str, str], body: bytes, now: float) -> bool:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    try:
        standard_webhook(
            Call("POST", "", b"", raw, body, False, now), [webhook_key(WEBHOOK_SECRET)]
        )
    except Refused:
        return False
    return True


@pytest.mark.parametrize("case", [SUPABASE, GENERIC], ids=["supabase", "generic"])
def test_what_the_python_library_signs_is_believed(case: Case) -> None:
    now = int(time.time())
    sealed = Webhook(WEBHOOK_SECRET).sign(
        "msg_2", datetime.fromtimestamp(now, UTC), case.body.decode()
    )
    headers = {
        **case.headers,
        "webhook-id": "msg_2",
        "webhook-timestamp": str(now),
        "webhook-signature": sealed,
    }

    async def main() -> None:
        async with hooked(case.hook, wall=time.time) as running:
            assert (await running.send(case, headers=headers)).status_code == 200
            changed = case.body.replace(b"@", b"%", 1)
            assert (await running.send(case, headers=headers, body=changed)).status_code == 401

    asyncio.run(main())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "1"},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1a,AAAA"},
    ],
    ids=str,
)
def test_we_believe_what_both_reference_verifiers_believe(
    change: dict[str, str], node: Node
) -> None:
    now = time.time()
    headers = {**webhook_headers(GENERIC.body, at=now), **change}
    try:
        Webhook(WEBHOOK_SECRET).verify(GENERIC.body, headers)
        python = True
    except WebhookVerificationError:
        python = False
    asked = node.ask(
        "standard.verify", secret=WEBHOOK_SECRET, headers=headers, body=GENERIC.body.decode()
    )
    assert (asked is True) == python == believed(headers, GENERIC.body, now)


def test_what_the_node_library_signs_is_believed(node: Node) -> None:
    now = int(time.time())
    body = '{"email":"josé@example.com"}'
    sealed = node.ask("standard.sign", secret=WEBHOOK_SECRET, id="msg_3", at=now, body=body)
    headers = {
        "webhook-id": "msg_3",
        "webhook-timestamp": str(now),
        "webhook-signature": sealed,
    }

    async def main() -> None:
        async with hooked(GENERIC.hook, wall=time.time) as running:
            response = await running.send(GENERIC, headers=headers, body=body.encode())
            assert response.status_code == 200
            response = await running.send(GENERIC, headers=headers, body=body.encode() + b"\n")
            assert response.status_code == 401

    asyncio.run(main())


# -- WorkOS ----------------------------------------------------------------------------------------


def signed_now() -> str:
    """A header over the recorded body, made now, as WorkOS makes it."""
    at = int(time.time() * 1000)
    seal = _compute_signature(f"{at}.{WORKOS.body.decode()}", WORKOS_SECRET)
    return f"t={at}, v1={seal}"


async def answer_of(header: str, *, refuse: bool) -> bytes:
    async with hooked(WORKOS.hook, mail=REFUSES if refuse else ACCEPTS, wall=time.time) as running:
        headers = {**WORKOS.headers, "WorkOS-Signature": header}
        response = await running.send(WORKOS, headers=headers)
        assert response.status_code == 200
        return response.content


@pytest.mark.parametrize("refuse", [False, True], ids=["allow", "deny"])
def test_both_workos_libraries_make_the_very_signature_of_our_answer(
    refuse: bool, node: Node
) -> None:
    header = signed_now()
    body = WORKOS.body.decode()
    Actions().verify_header(payload=WORKOS.body, sig_header=header, secret=WORKOS_SECRET)
    assert node.ask("workos.verify", secret=WORKOS_SECRET, header=header, body=body) is True

    raw = asyncio.run(answer_of(header, refuse=refuse))
    answer = json.loads(raw)
    payload = answer["payload"]
    assert payload["verdict"] == ("Deny" if refuse else "Allow")
    assert abs(payload["timestamp"] - time.time() * 1000) < 5000
    # The payload as it stands in the answer, not as somebody would write it again.
    sent = raw.partition(b'"payload":')[2].partition(b',"signature"')[0].decode()
    assert json.loads(sent) == payload
    signed = f"{payload['timestamp']}.{sent}"
    assert answer["signature"] == _compute_signature(signed, WORKOS_SECRET)
    assert answer["signature"] == node.ask("workos.seal", secret=WORKOS_SECRET, answer=answer)


def test_our_answer_has_the_fields_and_the_order_of_both_workos_libraries(node: Node) -> None:
    python = Actions().sign_response(
        action_type="user_registration", verdict="Deny", error_message="no", secret=WORKOS_SECRET
    )
    ours = json.loads(asyncio.run(answer_of(signed_now(), refuse=True)))
    theirs = node.ask("workos.sign", secret=WORKOS_SECRET, verdict="Deny", message="no")
    for other in (python, theirs):
        assert set(ours) == set(other)
        assert list(ours["payload"]) == list(other["payload"])
        assert ours["object"] == other["object"]


def test_a_call_the_workos_libraries_refuse_is_refused(node: Node) -> None:
    header = signed_now()
    changed = header.replace("v1=", "v1=0")[:-1]
    with pytest.raises(ValueError, match="does not match"):
        Actions().verify_header(payload=WORKOS.body, sig_header=changed, secret=WORKOS_SECRET)
    said = node.ask(
        "workos.verify", secret=WORKOS_SECRET, header=changed, body=WORKOS.body.decode()
    )
    assert "SignatureVerification" in said

    async def main() -> None:
        async with hooked(WORKOS.hook, wall=time.time) as running:
            headers = {**WORKOS.headers, "WorkOS-Signature": changed}
            assert (await running.send(WORKOS, headers=headers)).status_code == 401

    asyncio.run(main())
