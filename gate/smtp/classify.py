"""What one reply means: whose fault it is, then what is wrong. One table, one order of decision.

Measured on real replies, neither the reply code nor the enhanced code decides; the words do, and
the stage gates them. A refusal of *us* holds the same words as a missing mailbox ("Sender address
rejected: User unknown"), so the subject is looked for before the predicate.

Rules, in order:

1. Before RCPT nothing is ever said of the mailbox, whatever the words.
2. 2xx to RCPT accepts; 252 confirms nothing; `250 5.1.1` is out of step.
3. What we said ourselves is taken out of the text (wording.py).
4. The rows of rules.toml, in the order of their steps (rules.py). An enhanced code about the
   sender, the way or the message outweighs words for a missing mailbox.
5. An enhanced code breaks a tie: only words of no known meaning stand against it.
6. The reply code comes last. No 4xx is final. A 5xx of unknown words is `unconfirmed`, never
   "no such mailbox"; one without words carries, as `contrast`, the reason it takes if a random
   recipient of the same domain is answered differently.

What it promises: pure, never raises, whatever the text; a few tens of microseconds for a new
reply, a third of that for one that was said lately of another mailbox. Swapping the address for
another one never changes the reason.

Bugs: a server may say anything, and some say "user unknown" to whom they do not like. One reply
cannot show that; the random recipient and the provider's row are the remedies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from gate import budget
from gate.reason import SCOPE_OF, Reason, Scope
from gate.smtp.dialog import Stage
from gate.smtp.reply import Reply
from gate.smtp.rules import RULES, Rule
from gate.smtp.wording import LONGEST, Echo, Wording, unechoed, unquoted

__all__ = ["Echo", "Outcome", "classify", "said_to_all", "same_answer"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reply means, and which row or step said so."""

    reason: Reason
    scope: Scope
    reply: Reply | None = None
    retry_after: int | None = None
    """Seconds: what the reply asks for if that is credible, else the default of greylisting."""
    rule: str = ""
    """The row of rules.toml, or the built-in step, that decided."""
    contrast: Reason | None = None
    """The reason it takes if the random recipient got a *different* answer, or the host accepted
    somebody lately. Only a refusal without words has one (probing.md 3.8)."""
    rest: float | None = None
    """Seconds for which the host wants to be left alone, if its row knows better than the rest
    that every complaint about our rate is followed by."""


_BEFORE_RCPT: Final = frozenset(Stage) - {Stage.RCPT, Stage.CONTROL}
_MAILBOX: Final = frozenset({Reason.REJECTED_EMAIL, Reason.MAILBOX_DISABLED, Reason.MAILBOX_FULL})
_ABOUT_NOBODY: Final = _MAILBOX | {Reason.RELAY_DENIED, Reason.UNCONFIRMED}
"""What words before RCPT seem to say, and do not."""
_ABOUT_NOBODY_YET: Final = _ABOUT_NOBODY | {Reason.PROTOCOL_ERROR}
"""The same before MAIL: a host that knows neither EHLO nor HELO does not want us."""
_TLS_STAGES: Final = frozenset({Stage.STARTTLS, Stage.TLS})
_BARE: Final = frozenset({550, 551, 553})
_ABOUT_LOGIN: Final = frozenset({534, 535, 538})
"""RFC 4954: whoever is unknown here is the one who logs in."""
_OUT_OF_STEP: Final = frozenset({500, 501, 502, 503, 504})

_ENHANCED: Final[dict[str, tuple[Reason, Scope | None]]] = {
    "5.1.1": (Reason.REJECTED_EMAIL, None),
    "5.1.2": (Reason.RELAY_DENIED, None),
    "5.1.3": (Reason.REJECTED_EMAIL, None),
    "5.1.6": (Reason.REJECTED_EMAIL, None),
    "5.1.7": (Reason.PROBE_BLOCKED, None),
    "5.1.8": (Reason.PROBE_BLOCKED, None),
    "5.1.10": (Reason.RELAY_DENIED, None),
    "5.2.2": (Reason.MAILBOX_FULL, None),
    "5.3.1": (Reason.DEFERRED, None),
    "5.4.4": (Reason.RELAY_DENIED, None),
    "5.5.3": (Reason.DEFERRED, Scope.US),
    "5.7.10": (Reason.TLS_FAILED, None),
    "5.7.13": (Reason.MAILBOX_DISABLED, None),
    "4.1.1": (Reason.GREYLISTED, None),
    "4.1.8": (Reason.PROBE_BLOCKED, None),
    "4.2.0": (Reason.GREYLISTED, None),
    "4.2.1": (Reason.DEFERRED, Scope.RECIPIENT),
    "4.2.2": (Reason.MAILBOX_FULL, None),
    "4.3.1": (Reason.DEFERRED, None),
    "4.5.3": (Reason.DEFERRED, Scope.US),
    "4.7.1": (Reason.GREYLISTED, None),
    "4.7.10": (Reason.TLS_FAILED, None),
}
"""What an enhanced code is taken for when no known words stand beside it (smtp-replies.md 3). 5.7.1
and 5.2.1 are missing on purpose: by themselves they mean nothing, or too much to say which."""
_OUR_NAMES: Final = re.compile(r"[45]\.7\.(?:2[3-7]|5\d\d|6\d\d|7\d\d)")
"""Authentication of the sender (RFC 7372) and Microsoft's own codes of blocking."""

_NOT_THE_MAILBOX: Final = re.compile(
    r"5\.(?:1\.[789]|2\.(?:[3-9]|\d\d+)|3\.[1-9]\d*|4\.(?:[2-9]|\d\d+)|5\.[2-9]|6\.\d+"
    r"|7\.(?:[2-9]|1[0-24-689]|[2-9]\d|\d{3}))"
)
"""Details that the registry keeps for the sender, the system, the way, the message or the policy:
beside one of these, words for a missing mailbox prove nothing (RFC 3463, RFC 7372; none of some
eight hundred collected replies that mean one has such a code)."""


REMEMBERED: Final = 1024
"""Texts whose reading is remembered: a server has few, and says them to everybody."""

_NO_ECHO: Final = Echo()
_UNIT: Final = (
    r"(s(?:ec|ek)\w{0,6}|s\b|m(?:in)?\w{0,5}|h(?:our|rs?)?s?\b|stund\w{0,2}|heures?|horas?|ore\b)"
)
_WAIT: Final = re.compile(
    r"(?:for|in|after|within|wait|another|least|only|next|dans|en|em|tra|fra|von|(?:um )?=)"
    rf"[ :=]{{1,3}}(?:about |the next |at least )?(\d{{1,6}}) ?{_UNIT}"
    r"|\b(\d{1,2}):(\d\d):(\d\d)\b"
    rf"|(?:retry|delay|grey\w{{0,8}})\D{{1,12}}(\d{{1,6}}) ?{_UNIT}"
)
_DIGIT: Final = re.compile(r"\d")
_NO_WORD: Final = re.compile(r"\W+")


def classify(
    stage: Stage, reply: Reply, *, provider: str | None = None, echo: Echo = _NO_ECHO
) -> Outcome:
    """What `reply`, given at `stage`, means.

    `echo` holds our own words of the dialogue. `provider` is the name of the provider's row, for
    texts that mean something at one provider only.
    """
    if stage in _BEFORE_RCPT:
        return _before_rcpt(stage, reply, echo)
    if reply.code < 400:
        return _accepted(reply)
    return _refused(reply, _wording(reply, echo), provider)


def same_answer(a: Reply, b: Reply, echo_a: Echo, echo_b: Echo) -> bool:
    """Whether two replies say the same once our own words, numbers and identifiers are taken out.

    The same answer to the real and to the random recipient says nothing about the mailbox, unless
    the words name the mailbox.
    """
    if a.code != b.code:
        return False
    one, other = _wording(a, echo_a), _wording(b, echo_b)
    return one.enhanced == other.enhanced and _skeleton(one.text) == _skeleton(other.text)


def said_to_all(outcome: Outcome) -> Outcome:
    """What a refusal of the real recipient means, once the random one was told the very same.

    Words and codes of no known meaning then say that nobody is wanted, or not by us (faults.md
    R09); never that this mailbox does not exist.
    """
    reply = outcome.reply
    unread = outcome.reason is Reason.UNCONFIRMED and outcome.contrast is None
    if not unread or reply is None or reply.code < 500 or reply.enhanced:
        return outcome
    return replace(outcome, reason=Reason.PROBE_BLOCKED, scope=SCOPE_OF[Reason.PROBE_BLOCKED])


def _wording(reply: Reply, echo: Echo) -> Wording:
    """What it says without our own words and quotations; what is said to everybody is read once."""
    heard = unechoed(reply.code, reply.lines, echo)
    return Wording(_unquoted(heard.text, heard.own), heard.enhanced, heard.trailing)


@lru_cache(maxsize=REMEMBERED)
def _unquoted(text: str, own: frozenset[str]) -> str:
    return unquoted(text, own, RULES.signals)


def _skeleton(text: str) -> str:
    """The words without anything that holds a digit: identifiers, times, counts."""
    words = text.replace("addr_", "").split()
    return _NO_WORD.sub(" ", " ".join(w for w in words if not _DIGIT.search(w))).strip()


def _outcome(
    reason: Reason,
    reply: Reply,
    rule: str,
    scope: Scope | None = None,
    *,
    contrast: bool = False,
    rest: float | None = None,
) -> Outcome:
    return Outcome(
        reason=reason,
        scope=scope or SCOPE_OF[reason],
        reply=reply,
        retry_after=_retry_after(reason, reply),
        rule=rule,
        contrast=Reason.REJECTED_EMAIL if contrast else None,
        rest=rest,
    )


def _accepted(reply: Reply) -> Outcome:
    if reply.contradicts or reply.code >= 300:
        return _outcome(Reason.PROTOCOL_ERROR, reply, "out-of-step")
    if reply.code == 252:
        return _outcome(Reason.UNCONFIRMED, reply, "code-252")
    return _outcome(Reason.ACCEPTED_EMAIL, reply, "accepted")


def _before_rcpt(stage: Stage, reply: Reply, echo: Echo) -> Outcome:
    """Anything but the mailbox: words for it are about the sender here, or about nobody."""
    if reply.code < 400:
        return _outcome(Reason.UNCONFIRMED, reply, "stage")
    if stage in _TLS_STAGES:
        return _outcome(Reason.TLS_FAILED, reply, "stage-tls")
    permanent = reply.code >= 500
    if stage is Stage.MAIL and reply.code in (500, 502, 503):
        return _outcome(Reason.PROTOCOL_ERROR, reply, "out-of-step")
    found = _row(reply, _wording(reply, echo), None)
    meaningless = _ABOUT_NOBODY if stage is Stage.MAIL else _ABOUT_NOBODY_YET
    if found is None or found.reason in meaningless or _no_greylisting(found, stage, reply):
        default = Reason.PROBE_BLOCKED if permanent else Reason.DEFERRED
        return _outcome(default, reply, f"stage-{stage}")
    scope = Scope.HOST if found.scope in (Scope.RECIPIENT, Scope.DOMAIN) else found.scope
    return _outcome(found.reason, reply, found.id, scope, rest=found.rest)


def _refused(reply: Reply, wording: Wording, provider: str | None) -> Outcome:
    if reply.code in (503, 555):  # our command, not our recipient
        return _outcome(Reason.PROTOCOL_ERROR, reply, "out-of-step")
    found = _row(reply, wording, provider)
    if found is not None:
        return _by_row(found, reply, wording)
    enhanced = wording.enhanced or wording.trailing
    if enhanced in _ENHANCED:
        reason, scope = _ENHANCED[enhanced]
        return _tempered(reason, scope, reply, f"enhanced-{enhanced}")
    if _OUR_NAMES.fullmatch(enhanced):
        return _outcome(Reason.PROBE_BLOCKED, reply, f"enhanced-{enhanced}")
    return _by_code(reply, wording)


def _by_row(rule: Rule, reply: Reply, wording: Wording) -> Outcome:
    """What a row says, unless the code or the enhanced code takes it back."""
    if _no_greylisting(rule, Stage.RCPT, reply):
        return _outcome(Reason.DEFERRED, reply, rule.id)
    if reply.code in _ABOUT_LOGIN and rule.reason in _MAILBOX:
        return _outcome(Reason.PROBE_BLOCKED, reply, rule.id)
    if _contradicted(rule, wording):
        return _outcome(Reason.UNCONFIRMED, reply, rule.id)
    return _tempered(rule.reason, rule.scope, reply, rule.id, rule.rest)


def _contradicted(rule: Rule, wording: Wording) -> bool:
    """Whether the enhanced code speaks of another thing than words that say "nobody here".

    A row that names its enhanced codes was written knowing them.
    """
    absent = rule.reason in (Reason.REJECTED_EMAIL, Reason.MAILBOX_DISABLED) and not rule.enhanced
    return absent and _NOT_THE_MAILBOX.fullmatch(wording.enhanced) is not None


def _no_greylisting(rule: Rule, stage: Stage, reply: Reply) -> bool:
    """Whether "try again later" is trouble of the host rather than greylisting that is not named.

    Greylisting counts senders and recipients, so it is said of one of them; and it lets the
    connection go on, which 421 does not.
    """
    early = stage not in (Stage.MAIL, Stage.RCPT)
    return rule.step == "greylist" and (early or reply.code == 421)


def _row(reply: Reply, wording: Wording, provider: str | None) -> Rule | None:
    """The first row in deciding order that fits."""
    return _first(reply.code, wording.text, wording.enhanced, provider)


@lru_cache(maxsize=REMEMBERED)
def _first(number: int, text: str, enhanced: str, provider: str | None) -> Rule | None:
    code = str(number)
    for rule in RULES.candidates(text):
        if rule.codes and not code.startswith(rule.codes):
            continue
        if rule.enhanced and enhanced not in rule.enhanced:
            continue
        if rule.providers and provider and not any(p in provider.lower() for p in rule.providers):
            continue
        if rule.match.search(text) and not (rule.unless and rule.unless.search(text)):
            return rule
    return None


def _tempered(
    reason: Reason, scope: Scope | None, reply: Reply, rule: str, rest: float | None = None
) -> Outcome:
    """A 4xx is never final: what would be a refusal of the mailbox is asked again later.

    Postfix answers 450 4.1.1 by default for tables that it does not quite trust, and for addresses
    that it is still verifying: both want the same treatment as greylisting (faults.md R17).
    """
    if reply.code >= 500:
        return _outcome(reason, reply, rule, scope, rest=rest)
    if reason is Reason.REJECTED_EMAIL:
        return _outcome(Reason.GREYLISTED, reply, rule)
    if reason in (Reason.MAILBOX_DISABLED, Reason.UNCONFIRMED):
        return _outcome(Reason.DEFERRED, reply, rule, Scope.RECIPIENT)
    return _outcome(reason, reply, rule, scope, rest=rest)


def _by_code(reply: Reply, wording: Wording) -> Outcome:
    """Neither words nor an enhanced code of known meaning."""
    code = reply.code
    rule = f"code-{code}"
    if code < 500:
        scope = Scope.RECIPIENT if code in (450, 451) else Scope.HOST
        return _outcome(Reason.DEFERRED, reply, rule, scope)
    if code in _OUT_OF_STEP:
        return _outcome(Reason.PROTOCOL_ERROR, reply, rule)
    if code in (521, 530):
        return _outcome(Reason.PROBE_BLOCKED, reply, rule)
    bare = code in _BARE and not wording.enhanced and not _skeleton(wording.text)
    return _outcome(Reason.UNCONFIRMED, reply, rule, contrast=bare)


def _retry_after(reason: Reason, reply: Reply) -> int | None:
    """Seconds until a new try: what the reply names if credible; for greylisting, a default."""
    if reason not in (Reason.GREYLISTED, Reason.DEFERRED):
        return None
    default = int(budget.GREYLIST_RETRY) if reason is Reason.GREYLISTED else None
    found = _WAIT.search(reply.text.lower()[:LONGEST])
    if found is None:
        return default
    number, unit, hours, minutes, seconds, other, its = found.groups()
    if hours is not None:
        named = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    elif number is not None:
        named = int(number) * _seconds(unit)
    else:
        named = int(other) * _seconds(its)
    credible = budget.GREYLIST_RETRY_LEAST <= named <= budget.GREYLIST_RETRY_MOST
    return named if credible else default


def _seconds(unit: str) -> int:
    if unit.startswith(("stund", "heure", "hora", "ore", "h")):
        return 3600
    return 60 if unit.startswith("m") else 1
