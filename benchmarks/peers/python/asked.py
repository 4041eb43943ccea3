"""Reads addresses from standard input, so many at once, and prints what `ask` says of each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


def answer(ask: Callable[[str], str]) -> None:
    """Answer until the input ends; `ask` runs in as many threads as the first argument says."""

    def one(email: str) -> str:
        started = time.perf_counter()
        try:
            said, why = ask(email), ""
        except Exception as error:
            said, why = "unknown", repr(error)
        ms = (time.perf_counter() - started) * 1000
        return json.dumps({"email": email, "said": said, "why": why, "ms": ms}) + "\n"

    def tell(done: Future[str]) -> None:
        sys.stdout.write(done.result())  # whole lines: many threads tell at once
        sys.stdout.flush()

    print("ready", flush=True)
    with ThreadPoolExecutor(int(sys.argv[1])) as pool:
        for line in sys.stdin:
            email = line.strip()
            pool.submit(one, email).add_done_callback(tell)
