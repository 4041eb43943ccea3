"""What a good engineer writes in an afternoon: dnspython's asyncio resolver and aiosmtplib.

MX in order of preference, EHLO, MAIL, RCPT, and a random recipient behind the real one in a
transaction of its own; 2xx, 5xx and 4xx are told apart by their codes.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time

import aiosmtplib
import dns.asyncresolver

HELO, SENDER, SECONDS = "good.lab.example.com", "probe@lab.example.com", 10.0


async def mailbox(email: str) -> str:
    domain = email.rpartition("@")[2]
    found = await dns.asyncresolver.resolve(domain, "MX")
    for host in sorted(found, key=lambda mx: mx.preference):
        try:
            return await dialogue(str(host.exchange), email, domain)
        except (OSError, aiosmtplib.SMTPConnectError, aiosmtplib.SMTPServerDisconnected):
            continue
    return "unknown"


async def dialogue(host: str, email: str, domain: str) -> str:
    client = aiosmtplib.SMTP(
        hostname=host, port=25, local_hostname=HELO, timeout=SECONDS, start_tls=False
    )
    await client.connect()
    try:
        if not await accepts(client, email):
            return "missing"
        await client.rset()
        random = f"x{secrets.token_hex(10)}@{domain}"
        return "accepts all" if await accepts(client, random) else "exists"
    except aiosmtplib.SMTPResponseException:
        return "unknown"
    finally:
        await client.quit()


async def accepts(client: aiosmtplib.SMTP, email: str) -> bool:
    await client.mail(SENDER)
    try:
        await client.rcpt(email)
    except aiosmtplib.SMTPRecipientRefused as refusal:
        if refusal.code < 500:
            raise
        return False
    return True


async def one(email: str, places: asyncio.Semaphore) -> None:
    async with places:
        started = time.perf_counter()
        try:
            said, why = await asyncio.wait_for(mailbox(email), SECONDS), ""
        except Exception as error:
            said, why = "unknown", repr(error)
        ms = (time.perf_counter() - started) * 1000
    print(json.dumps({"email": email, "said": said, "why": why, "ms": ms}), flush=True)


async def main() -> None:
    places = asyncio.Semaphore(int(sys.argv[1]))
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    async with asyncio.TaskGroup() as tasks:
        while line := await reader.readline():
            tasks.create_task(one(line.decode().strip(), places))


asyncio.run(main())
