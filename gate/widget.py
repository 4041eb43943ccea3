"""The widget, built when the gate starts: `/v1/gate.js` from its sources in widget/, without Node.

What it promises: the same sources give the same bytes; what is served is these bytes,
from memory, and `integrity` is theirs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import gate
from gate.minify import minify

PARTS: Final = ("messages.js", "machine.js", "gate.js", "script.js")
"""In the order in which they need each other."""
GZIP_MOST: Final = 5 * 1024
"""Octets of the compressed script: what a signup page is made to load."""

_BUNDLED: Final = Path(__file__).parent / "assets" / "widget"
"""Where a wheel carries the sources; in a checkout they stand beside the package."""
_LINE: Final = re.compile(r"^(?:import\b.*\n|export )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """The built file. `integrity` is what a script tag repeats; `tag` tells builds apart."""

    body: bytes
    gzipped: bytes
    integrity: str
    tag: str

    @property
    def path(self) -> str:
        """Where these very bytes, and never others, are found."""
        return f"/v1/gate.js?v={self.tag}"


@cache
def script() -> Script:
    """The widget as it is served. Built once."""
    return build(sources())


def sources() -> Path:
    """The folder of the widget's sources."""
    return _BUNDLED if _BUNDLED.is_dir() else Path(__file__).parent.parent / "widget"


def build(folder: Path) -> Script:
    """One script from the modules of `folder`."""
    parts = [_LINE.sub("", (folder / name).read_text("utf-8")) for name in PARTS]
    code = minify("(() => {\n" + "\n".join(parts) + "})();")
    body = f"/*! signup-gate {gate.__version__} */\n{code}\n".encode()
    digest = hashlib.sha384(body).digest()
    return Script(
        body=body,
        gzipped=gzip.compress(body, 9, mtime=0),
        integrity="sha384-" + base64.b64encode(digest).decode(),
        tag=f"{gate.__version__}-{digest.hex()[:12]}",
    )
