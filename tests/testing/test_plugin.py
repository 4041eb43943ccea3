"""The leak check, run in a pytest of its own over tests that leak and tests that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PREAMBLE = """
import asyncio, gc, socket, threading, time
import pytest
KEPT = []
"""

LEAKS = [
    (
        "socket",
        """
def test_it():
    listener = socket.create_server(("127.0.0.1", 0))
    KEPT.append(listener)
""",
        "*leaves behind: socket ('127.0.0.1', *",
    ),
    (
        "connection",
        """
@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener
def test_it(server):
    KEPT.append(socket.create_connection(server.getsockname()))
""",
        "*leaves behind: socket ('127.0.0.1', *) → ('127.0.0.1', *",
    ),
    (
        "thread",
        """
def test_it():
    threading.Thread(target=time.sleep, args=(2,), name="sleeper", daemon=True).start()
""",
        "*leaves behind: thread 'sleeper'*",
    ),
    (
        "task",
        """
async def forgotten():
    await asyncio.sleep(60)
def test_it():
    async def main():
        KEPT.append(asyncio.create_task(forgotten()))
        await asyncio.sleep(0)
    asyncio.run(main())
""",
        "*leaves behind: task forgotten*",
    ),
]

SOUND = [
    (
        "closed",
        """
def test_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
""",
    ),
    (
        "opened by a fixture",
        """
@pytest.fixture(scope="module")
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener
def test_it(server):
    pass
""",
    ),
    (
        "still closing",
        """
def test_it():
    threading.Thread(target=time.sleep, args=(0.02,)).start()
""",
    ),
    (
        "marked",
        """
@pytest.mark.may_leak
def test_it():
    KEPT.append(socket.create_server(("127.0.0.1", 0)))
def test_after_it():
    KEPT.pop().close()
""",
    ),
    (
        "awaited",
        """
def test_it():
    async def main():
        await asyncio.create_task(asyncio.sleep(0))
    asyncio.run(main())
""",
    ),
]


def outcome(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str, *, on: bool = True
) -> pytest.RunResult:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile(PREAMBLE + source)
    pytester.makeini(f"[pytest]\ngate_leaks = {str(on).lower()}\n")
    return pytester.runpytest_subprocess("-p", "gate.testing.plugin", "--strict-markers")


@pytest.mark.parametrize(("name", "source", "message"), LEAKS, ids=[row[0] for row in LEAKS])
def test_a_leak_fails_the_test_and_is_named(
    name: str,
    source: str,
    message: str,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = outcome(pytester, monkeypatch, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([message])


@pytest.mark.parametrize(("name", "source"), SOUND, ids=[row[0] for row in SOUND])
def test_what_is_no_leak_passes(
    name: str, source: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = outcome(pytester, monkeypatch, source)
    result.assert_outcomes(passed=source.count("def test_"))


def test_a_failing_test_keeps_its_own_message(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
def test_it():
    KEPT.append(socket.create_server(("127.0.0.1", 0)))
    raise AssertionError("of its own")
"""
    result = outcome(pytester, monkeypatch, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: of its own*"])
    result.stdout.no_fnmatch_line("*leaves behind*")


def test_it_is_off_unless_the_ini_file_says_so(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = outcome(pytester, monkeypatch, LEAKS[0][1], on=False)
    result.assert_outcomes(passed=1)
