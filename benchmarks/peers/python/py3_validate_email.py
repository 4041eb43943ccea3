"""py3-validate-email: smtplib, one dialogue a question, no memory."""

from __future__ import annotations

from asked import answer
from validate_email import validate_email_or_fail  # type: ignore[import-not-found]
from validate_email.exceptions import (  # type: ignore[import-not-found]
    AddressFormatError,
    AddressNotDeliverableError,
    DomainNotFoundError,
    NoMXError,
    NoValidMXError,
)

MISSING = (
    AddressFormatError,
    AddressNotDeliverableError,
    DomainNotFoundError,
    NoMXError,
    NoValidMXError,
)


def ask(email: str) -> str:
    try:
        found = validate_email_or_fail(
            email,
            check_blacklist=False,
            smtp_helo_host="good.lab.example.com",
            smtp_from_address="probe@lab.example.com",
            smtp_skip_tls=True,
        )
    except MISSING:
        return "missing"
    return "exists" if found else "unknown"


answer(ask)
