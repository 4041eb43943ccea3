"""The dialogue as aiosmtplib holds it: one command at a time, TLS only where it is demanded."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import aiosmtplib

from tests.lab.lab import Lab
from tests.lab.world import CLIENTS, Ask, Domain

PATIENCE: Final = 15.0
"""Seconds for one reply; the slowest servers here wait two before they greet."""
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Heard:
    """The reply that ended the talk, and the stage it came at."""

    stage: str
    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


async def ask(lab: Lab, client: str, domain: Domain, local: str, *, upgrade: bool = True) -> Heard:
    """What `local` of the domain is answered, or the refusal before it comes to that.

    `upgrade`: do as a reply says that demands STARTTLS; else that reply is the last.
    """
    words = CLIENTS[client]
    smtp = aiosmtplib.SMTP(
        hostname=lab.server_ip(domain),
        port=25,
        local_hostname=words.helo,
        source_address=(lab.client_ip(client), 0),
        start_tls=False,
        timeout=PATIENCE,
    )
    stage = "greeting"
    try:
        await smtp.connect()
        stage = "ehlo"
        await smtp.ehlo()
        stage = "mail"
        wide = [] if local.isascii() else ["SMTPUTF8"]
        try:
            await smtp.mail(words.mail_from, options=wide, encoding="utf-8")
        except aiosmtplib.SMTPSenderRefused as refusal:
            if refusal.code != 530 or not upgrade:
                raise
            await smtp.starttls(tls_context=_any_certificate())
            await smtp.ehlo()
            await smtp.mail(words.mail_from, options=wide, encoding="utf-8")
        stage = "rcpt"
        accepted = await smtp.rcpt(f"{local}@{domain.full}", encoding="utf-8")
        return Heard(stage, accepted.code, _one_line(accepted.message))
    except aiosmtplib.SMTPResponseException as refusal:
        return Heard(stage, refusal.code, _one_line(refusal.message))
    finally:
        with suppress(aiosmtplib.SMTPException):
            await smtp.quit()
        smtp.close()


async def ask_all(
    lab: Lab, client: str, questions: Iterable[tuple[Domain, Ask]]
) -> dict[tuple[str, str], Heard]:
    """Many questions, a few at a time; the answers by (domain, local part)."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(domain: Domain, row: Ask) -> tuple[tuple[str, str], Heard]:
        async with turn:
            heard = await ask(lab, client, domain, row.local, upgrade=row.stage != "mail")
            return (domain.name, row.local), heard

    return dict(await asyncio.gather(*(one(*question) for question in questions)))


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _one_line(message: str) -> str:
    return " ".join(message.split("\n"))
