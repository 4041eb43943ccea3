"""TLS for test servers: contexts with a certificate whose key everybody can read."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from gate.reason import GateError

CERTIFICATES: Final = Path(__file__).parent / "certificates"
HUGE_CHAIN: Final = 1024 * 1024
"""Octets of the certificate chain of the "huge" variant."""


@cache
def server_context(kind: str = "") -> ssl.SSLContext:
    """A server's TLS context with a self-signed certificate for mx.test whose key is public.

    Kinds: "" (sound), "expired", "old" (the oldest TLS there is and nothing newer), "huge" (a
    certificate chain of a megabyte). GateError for any other.
    """
    if kind not in ("", "expired", "old", "huge"):
        raise GateError(f"there is no TLS variant {kind!r}; there is expired, old, huge")
    name = "expired.pem" if kind == "expired" else "sound.pem"
    pem = CERTIFICATES / name
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if kind == "huge":
        _load_huge_chain(context, pem.read_text("ascii"))
    else:
        context.load_cert_chain(pem)
    if kind == "old":
        # Level 0, or the library would rather fail by itself than speak such a version.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    return context


def _load_huge_chain(context: ssl.SSLContext, pem: str) -> None:
    certificate = pem[pem.index("-----BEGIN CERTIFICATE") :]
    copies = HUGE_CHAIN // len(ssl.PEM_cert_to_DER_cert(certificate))
    with NamedTemporaryFile("w", suffix=".pem", encoding="ascii") as file:
        file.write(pem + certificate * copies)
        file.flush()
        context.load_cert_chain(file.name)
