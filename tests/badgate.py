"""Something that listens where a gate should, and is none: silent, lying, endless, hanging up."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

HANG_UP = b""
SILENT: tuple[bytes, ...] = ()
"""Says nothing until the test ends."""
DRIP = 0.02


def http(status: int, body: bytes, kind: str = "application/json") -> bytes:
    """An answer after which the connection ends."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


@dataclass(slots=True)
class BadGate:
    """Where it listens, and what it was sent so far."""

    url: str
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def bad_gate(*answers: bytes | Sequence[bytes]) -> Iterator[BadGate]:
    """One that gives the first caller the first answer, and so on; the last again and again.

    Octets are sent, and the connection is closed. A sequence is sent piece by piece, slowly, and
    then nothing more, with the connection left open.
    """
    stop = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request = b""
            length = 0
            for line in self.rfile:
                request += line
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
                if line == b"\r\n":
                    break
            request += self.rfile.read(length)
            answer = answers[min(len(gate.requests), len(answers) - 1)]
            gate.requests.append(request)
            try:
                if isinstance(answer, bytes):
                    self.wfile.write(answer)
                    return
                for piece in answer:
                    self.wfile.write(piece)
                    if stop.wait(DRIP):
                        return
                stop.wait()
            except OSError:
                return  # the client has had enough

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        gate = BadGate(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield gate
        finally:
            stop.set()
            server.shutdown()
            thread.join()
