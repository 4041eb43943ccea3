"""The `[[hook]]` tables: which platforms may ask, with which secrets, for which site.

Apart from gate/settings/, which reads them, only because there are so many of them. What a type
cannot say is said by `problems`; what only the platform knows (the form of a secret) is refused by
its adapter when the gate opens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from gate.budget import HOOK_LEAST, HOOKS

Platform = Literal[
    "supabase",
    "kratos",
    "zitadel",
    "workos",
    "authgear",
    "okta",
    "entra",
    "azure-b2c",
    "fusionauth",
    "parse",
    "generic",
    "forward",
    "truemail",
]
ENV: Final = "env:"
MESSAGE_MOST: Final = 500
"""Characters of a message: WorkOS takes no more."""
_NAME = re.compile(r"[a-z0-9-]{0,32}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
_ASCII_ONLY: Final = ("workos",)


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the settings file."""


class HookAnswer(_Section, frozen=True):
    """What is answered where the platform leaves it open: `generic` and `forward`."""

    allow_status: Annotated[int, Meta(ge=200, le=299, description="status of allow")] = 200
    allow_body: Annotated[
        str, Meta(description="JSON text of allow; empty: none (generic: its own)")
    ] = ""
    block_status: Annotated[
        Annotated[int, Meta(ge=200, le=499)] | None,
        Meta(description="status of block; unset: 200 (generic), 403 (forward)"),
    ] = None
    block_body: Annotated[
        str,
        Meta(
            description="JSON text of block; {message}, {title}, {reason}, {decision} and "
            "{language} are put in; empty: the hook's own"
        ),
    ] = ""


class HookToken(_Section, frozen=True):
    """How Entra's bearer token is verified. Nothing is fetched: see gate/hooks/entra.py."""

    jwks: Annotated[
        str, Meta(description="file with the tenant's key set (JWKS); read again when it changes")
    ] = ""
    audience: Annotated[str, Meta(description="`aud`: application id of your API")] = ""
    issuer: Annotated[str, Meta(description="`iss`: https://….ciamlogin.com/…/v2.0")] = ""


class Hook(_Section, frozen=True):
    """One platform that asks before it creates a user, at /v1/hooks/PLATFORM[/NAME]."""

    platform: Annotated[Platform, Meta(description="which platform asks")]
    name: Annotated[
        str, Meta(description="tells two hooks of one platform apart: the path ends in /NAME")
    ] = ""
    site: Annotated[
        str, Meta(description="name of the [[site]] whose policy decides; needless if there is one")
    ] = ""
    secrets: Annotated[
        tuple[str, ...],
        Meta(
            description="shared with the platform, several while they are being changed; "
            "env:NAME is read from the environment"
        ),
    ] = ()
    secret_header: Annotated[
        str, Meta(description="header that carries the secret, where the platform lets you choose")
    ] = ""
    deadline_ms: Annotated[
        Annotated[int, Meta(ge=int(HOOK_LEAST * 1000))] | None,
        Meta(description="longest time to the answer; unset: by platform, well inside its own"),
    ] = None
    language: Annotated[str, Meta(description="of messages when the call names none")] = "en"
    messages: Annotated[
        dict[str, str], Meta(description="your own text by language, instead of the built-in ones")
    ] = {}
    email_at: Annotated[
        tuple[str, ...],
        Meta(description='where the address is: "user.email"; unset: where the platform has it'),
    ] = ()
    email_header: Annotated[
        str, Meta(description="forward: header in which your proxy sends the address")
    ] = ""
    without_email: Annotated[
        Literal["allow", "block"], Meta(description="what to do when a call holds no address")
    ] = "allow"
    legacy: Annotated[
        bool,
        Meta(
            description="supabase before 2.187: block with status 400; azure-b2c: answer for "
            "custom policies"
        ),
    ] = False
    answer: HookAnswer = HookAnswer()
    token: HookToken = HookToken()

    @property
    def path(self) -> str:
        """What follows /v1/hooks/."""
        return f"{self.platform}/{self.name}" if self.name else self.platform

    @property
    def deadline(self) -> float:
        """Seconds from the call to the answer."""
        own = HOOKS[self.platform].ours
        return own if self.deadline_ms is None else self.deadline_ms / 1000


def problems(hooks: Sequence[Hook], sites: Collection[str]) -> list[str]:
    """What a type cannot say; each line begins with the key and ends with what to write."""
    found = []
    for index, hook in enumerate(hooks):
        found += [f"hook[{index}].{text}" for text in _of(hook, sites)]
    paths = [hook.path for hook in hooks]
    found += [
        f"hook.name: two hooks answer at /v1/hooks/{path}; give one of them a name of its own"
        for path in dict.fromkeys(paths)
        if paths.count(path) > 1
    ]
    return found


def _of(hook: Hook, sites: Collection[str]) -> Iterator[str]:
    if not _NAME.fullmatch(hook.name):
        yield "name: write up to 32 small letters, digits and hyphens"
    if hook.site and hook.site not in sites:
        yield f"site: there is no [[site]] named {hook.site!r}"
    if not hook.site and len(sites) > 1:
        yield "site: there are several sites; write the name of the one whose policy decides"
    limit = HOOKS[hook.platform].theirs
    if limit is not None and hook.deadline >= limit:
        yield f"deadline_ms: the platform gives up after {limit * 1000:.0f}; write less"
    status = hook.answer.block_status
    if hook.platform == "forward" and status is not None and status < 400:
        yield "answer.block_status: a proxy lets a signup with such a status in; write 403"
    yield from _secret_problems(hook)
    yield from _text_problems(hook)


def _secret_problems(hook: Hook) -> Iterator[str]:
    by_token = hook.platform == "entra" and hook.token.jwks
    if not hook.secrets and hook.platform != "forward" and not by_token:
        yield 'secrets: nothing proves a call without one; write ["env:NAME"]'
    for secret in hook.secrets:
        if secret.startswith(ENV):
            yield f"secrets: {secret} was not read; the environment is, when the gate starts"
        elif not secret.strip():
            yield "secrets: an empty one proves nothing; take it out"
    token = hook.token
    if token.jwks and not (token.audience and token.issuer):
        yield "token: a key set alone lets every tenant in; write audience and issuer as well"


def _text_problems(hook: Hook) -> Iterator[str]:
    for language in (hook.language, *hook.messages):
        if not _LANGUAGE.fullmatch(language):
            yield f'messages: {language!r} is no language; write "en" or "pt-BR"'
    for language, text in hook.messages.items():
        if not 0 < len(text) <= MESSAGE_MOST or not text.isprintable():
            yield (
                f"messages.{language}: write 1 to {MESSAGE_MOST} printable characters (an empty "
                "message means allow to some platforms)"
            )
        if hook.platform in _ASCII_ONLY and not text.isascii():
            yield (
                f"messages.{language}: {hook.platform} signs the text, and its libraries differ "
                "beyond ASCII; write ASCII only"
            )
