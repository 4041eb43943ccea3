"""The closed vocabulary of verdicts: what can be said about an address, and whose fault it is.

Every other module speaks in these words. The tables are exhaustive over `Reason` (a test walks
them), so an `unknown` can never be paired with `rejected_email`. This module imports nothing of
the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Result(StrEnum):
    """What the mail system says about the address. `unknown` is an answer, not an error."""

    DELIVERABLE = "deliverable"
    UNDELIVERABLE = "undeliverable"
    RISKY = "risky"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a result was given. Closed: clients treat a value that is not listed as `unknown`."""

    ACCEPTED_EMAIL = "accepted_email"
    INVALID_EMAIL = "invalid_email"
    INVALID_DOMAIN = "invalid_domain"
    NO_MX = "no_mx"
    NULL_MX = "null_mx"
    REJECTED_EMAIL = "rejected_email"
    MAILBOX_DISABLED = "mailbox_disabled"
    ACCEPT_ALL = "accept_all"
    MAILBOX_FULL = "mailbox_full"
    TIMEOUT = "timeout"
    GREYLISTED = "greylisted"
    DEFERRED = "deferred"
    NO_CONNECT = "no_connect"
    PROBE_BLOCKED = "probe_blocked"
    TLS_FAILED = "tls_failed"
    PROTOCOL_ERROR = "protocol_error"
    UNCONFIRMED = "unconfirmed"
    RELAY_DENIED = "relay_denied"
    MX_UNROUTABLE = "mx_unroutable"
    PROVIDER_OPAQUE = "provider_opaque"
    PROBE_OFF = "probe_off"
    THROTTLED = "throttled"
    DNS_ERROR = "dns_error"
    UNEXPECTED_ERROR = "unexpected_error"


class Scope(StrEnum):
    """What an outcome is about; the one word that decides blame.

    It settles four things at once: is the next MX tried (`host`, `us`), is the connection kept
    (`recipient`, `domain`), where is the answer remembered, and who is throttled.
    """

    RECIPIENT = "recipient"
    DOMAIN = "domain"
    HOST = "host"
    US = "us"


class Flag(StrEnum):
    """What lists and rules say of an address. Flags feed the policy and never touch the verdict."""

    DISPOSABLE = "disposable"
    POSSIBLE_TYPO = "possible_typo"
    ROLE = "role"
    RELAY = "relay"
    FREE = "free"
    BLOCKED_BY_RULE = "blocked_by_rule"
    ALLOWED_BY_RULE = "allowed_by_rule"


class Choice(StrEnum):
    """What a site does with a signup: the decision of its policy."""

    ALLOW = "allow"
    WARN = "warn"
    BLOCK = "block"


VERDICT_OF: Mapping[Reason, Result] = MappingProxyType(
    {
        Reason.ACCEPTED_EMAIL: Result.DELIVERABLE,
        Reason.INVALID_EMAIL: Result.UNDELIVERABLE,
        Reason.INVALID_DOMAIN: Result.UNDELIVERABLE,
        Reason.NO_MX: Result.UNDELIVERABLE,
        Reason.NULL_MX: Result.UNDELIVERABLE,
        Reason.REJECTED_EMAIL: Result.UNDELIVERABLE,
        Reason.MAILBOX_DISABLED: Result.UNDELIVERABLE,
        Reason.ACCEPT_ALL: Result.RISKY,
        Reason.MAILBOX_FULL: Result.RISKY,
        Reason.TIMEOUT: Result.UNKNOWN,
        Reason.GREYLISTED: Result.UNKNOWN,
        Reason.DEFERRED: Result.UNKNOWN,
        Reason.NO_CONNECT: Result.UNKNOWN,
        Reason.PROBE_BLOCKED: Result.UNKNOWN,
        Reason.TLS_FAILED: Result.UNKNOWN,
        Reason.PROTOCOL_ERROR: Result.UNKNOWN,
        Reason.UNCONFIRMED: Result.UNKNOWN,
        Reason.RELAY_DENIED: Result.UNKNOWN,
        Reason.MX_UNROUTABLE: Result.UNKNOWN,
        Reason.PROVIDER_OPAQUE: Result.UNKNOWN,
        Reason.PROBE_OFF: Result.UNKNOWN,
        Reason.THROTTLED: Result.UNKNOWN,
        Reason.DNS_ERROR: Result.UNKNOWN,
        Reason.UNEXPECTED_ERROR: Result.UNKNOWN,
    }
)
"""The only place where a reason is given its result."""

SCOPE_OF: Mapping[Reason, Scope] = MappingProxyType(
    {
        Reason.ACCEPTED_EMAIL: Scope.RECIPIENT,
        Reason.INVALID_EMAIL: Scope.RECIPIENT,
        Reason.INVALID_DOMAIN: Scope.DOMAIN,
        Reason.NO_MX: Scope.DOMAIN,
        Reason.NULL_MX: Scope.DOMAIN,
        Reason.REJECTED_EMAIL: Scope.RECIPIENT,
        Reason.MAILBOX_DISABLED: Scope.RECIPIENT,
        Reason.ACCEPT_ALL: Scope.DOMAIN,
        Reason.MAILBOX_FULL: Scope.RECIPIENT,
        Reason.TIMEOUT: Scope.HOST,
        Reason.GREYLISTED: Scope.RECIPIENT,
        Reason.DEFERRED: Scope.HOST,
        Reason.NO_CONNECT: Scope.HOST,
        Reason.PROBE_BLOCKED: Scope.US,
        Reason.TLS_FAILED: Scope.HOST,
        Reason.PROTOCOL_ERROR: Scope.HOST,
        Reason.UNCONFIRMED: Scope.RECIPIENT,
        Reason.RELAY_DENIED: Scope.HOST,
        Reason.MX_UNROUTABLE: Scope.DOMAIN,
        Reason.PROVIDER_OPAQUE: Scope.DOMAIN,
        Reason.PROBE_OFF: Scope.US,
        Reason.THROTTLED: Scope.US,
        Reason.DNS_ERROR: Scope.DOMAIN,
        Reason.UNEXPECTED_ERROR: Scope.US,
    }
)
"""The usual scope of a reason. One exchange may narrow it (a deferral of one recipient, say)."""

MEANING: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.ACCEPTED_EMAIL: "the mailbox was accepted and the domain is not accept-all",
        Reason.INVALID_EMAIL: "not a valid address; the position of the fault is given",
        Reason.INVALID_DOMAIN: "the domain does not exist (NXDOMAIN)",
        Reason.NO_MX: "neither MX nor address records, or its own hosts know no such destination",
        Reason.NULL_MX: "the domain declares that it receives no mail (RFC 7505)",
        Reason.REJECTED_EMAIL: "a permanent refusal of this mailbox",
        Reason.MAILBOX_DISABLED: "the mailbox exists but is switched off",
        Reason.ACCEPT_ALL: "a random recipient of the domain is accepted as well",
        Reason.MAILBOX_FULL: "the mailbox is over its quota",
        Reason.TIMEOUT: "the caller's time ended; the check goes on without it",
        Reason.GREYLISTED: "deferred by greylisting; ask again later",
        Reason.DEFERRED: "any other temporary refusal",
        Reason.NO_CONNECT: "no MX host could be talked to",
        Reason.PROBE_BLOCKED: "they refuse us (block list, HELO, sender, policy), not the mailbox",
        Reason.TLS_FAILED: "TLS is required and was not to be had",
        Reason.PROTOCOL_ERROR: "what answers is not SMTP, or is out of step",
        Reason.UNCONFIRMED: "an answer that settles nothing",
        Reason.RELAY_DENIED: "the host does not serve the domain",
        Reason.MX_UNROUTABLE: "every MX address is one we refuse to dial",
        Reason.PROVIDER_OPAQUE: "a provider whose acceptance means nothing",
        Reason.PROBE_OFF: "probing is switched off or not configured",
        Reason.THROTTLED: "a limit of our own was reached",
        Reason.DNS_ERROR: "the look-up failed; that says nothing about the domain",
        Reason.UNEXPECTED_ERROR: "a fault of the gate itself",
    }
)
"""One line per reason, for the CLI, the OpenAPI document and the README."""

TEMPORARY: frozenset[Reason] = frozenset(
    {
        Reason.TIMEOUT,
        Reason.GREYLISTED,
        Reason.DEFERRED,
        Reason.THROTTLED,
        Reason.NO_CONNECT,
        Reason.DNS_ERROR,
    }
)
"""Reasons after which a better answer may follow by itself: `final` is false for these."""


class GateError(Exception):
    """Our side is wrong: misuse or configuration. The message says what to do about it."""


class RemoteProtocolError(Exception):
    """The peer broke its protocol. The only exception a stranger's bytes can cause."""
