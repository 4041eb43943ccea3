"""What may not lie about in plain text: addresses that wait for a re-check, messages not yet sent.

AES-256-GCM (NIST SP 800-38D) with a key of its own for each site, derived from the master key, and
a random nonce of 96 bits: at a million sealed texts a day the chance of ever using one twice stays
below 2^-32 for a site's first three months, and nothing sealed lives longer than a week. What is
sealed says for what it was sealed; taken for anything else it does not open.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gate.token import Keys

NONCE_OCTETS: Final = 12


class Seal:
    """Seals and opens, for the sites of one master key."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def close(self, site: str, name: str, text: bytes) -> bytes:
        """`text` sealed as `name` of a site. A few microseconds."""
        nonce = os.urandom(NONCE_OCTETS)
        return nonce + _cipher(self._keys, site).encrypt(nonce, text, name.encode())

    def open(self, site: str, name: str, sealed: bytes) -> bytes | None:
        """What was sealed under that name; None if it was not, or by a master key that is neither
        ours nor the one before it.
        """
        nonce, rest = sealed[:NONCE_OCTETS], sealed[NONCE_OCTETS:]
        for keys in self._keys.all:
            try:
                return _cipher(keys, site).decrypt(nonce, rest, name.encode())
            except (InvalidTag, ValueError):
                continue
        return None


def _cipher(keys: Keys, site: str) -> AESGCM:
    return AESGCM(keys.derive(site, "seal"))
