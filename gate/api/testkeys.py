"""Key pairs with a fixed answer, for the integrator's own tests: public constants.

They ask no mail server and remember nothing. Their tokens are marked `test`: a real secret refuses
them, and a test secret refuses real ones, so none can stand in production by mistake and pass.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from gate.answer import Answer
from gate.api.unasked import unasked
from gate.budget import TEST_KEY_DELAY, Clock
from gate.reason import Reason
from gate.settings import Site

TEST_PREFIX: Final = "test_"
SUGGESTED_DOMAIN: Final = "example.com"


@dataclass(frozen=True, slots=True)
class Fixed:
    """A test pair: what every address is answered, when, and whether its token counts as spent."""

    name: str
    reason: Reason
    suggests: bool = False
    delay: float = 0.0
    spent: bool = False

    @property
    def secret(self) -> str:
        """The secret key, for `Authorization: Bearer` or the `secret` of siteverify."""
        return f"sk_{TEST_PREFIX}{self.name}"

    @property
    def site(self) -> Site:
        """The pair's own site: default policy, any origin."""
        return Site(
            name=f"{TEST_PREFIX}{self.name}",
            site_key=f"pk_{TEST_PREFIX}{self.name}",
            secret_hash=hashlib.sha256(self.secret.encode()).hexdigest(),
        )


PAIRS: Final = (
    Fixed("always_allow", Reason.ACCEPTED_EMAIL),
    Fixed("always_block", Reason.REJECTED_EMAIL),
    Fixed("always_warn", Reason.UNCONFIRMED, suggests=True),
    Fixed("always_unknown", Reason.TIMEOUT, delay=TEST_KEY_DELAY),
    Fixed("token_spent", Reason.ACCEPTED_EMAIL, spent=True),
)
"""pk_test_NAME and sk_test_NAME. `always_unknown` answers after 800 ms."""


def fixed_answer(email: str, pair: Fixed, site: Site, *, clock: Clock, wall: Clock) -> Answer:
    """What the pair says about any address, well-formed or not."""
    suggestion = None
    if pair.suggests:
        local = email.rpartition("@")[0] or "jane"
        suggestion = f"{local}@{SUGGESTED_DOMAIN}"
    return unasked(email, site, pair.reason, clock=clock, wall=wall, suggestion=suggestion)
