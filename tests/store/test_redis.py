"""The Redis store against what servers, networks and other processes do to it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trustme

from gate.budget import STORE_ANSWER, STORE_NEWS, STORE_OPEN, STORE_RETRY, STORE_WAIT
from gate.reason import GateError
from gate.redis_url import RedisUrl, parse, without_password
from gate.settings.read import parse as parse_settings
from gate.store import Job, Kept, Store, open_store
from gate.store.behind import UNWRITTEN
from gate.store.link import Server, doubts, refusal
from gate.switch import place_of
from gate.testing import LoopLag
from gate.testing.proxy import Faults, FaultyProxy
from tests.ports import free_port
from tests.redisworld import RedisServer, opened, redis_server

KEY, OTHER = b"k" * 16, b"o" * 16
SECRET = "s3cret-of-the-test"


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server("--appendonly", "yes") as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.ask("FLUSHALL")
    return shared


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that the test may do anything to."""
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


async def until(store: Store, *, healthy: bool) -> None:
    async with asyncio.timeout(10):
        while store.healthy is not healthy:  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0.01)


def job(name: str) -> Job:
    now = time.time()
    return Job("k", name.encode(), "shop", b"jane", b"", now, now, now + 900, now + 1800)


async def refusing(url: str) -> str:
    """What opening says, in full."""
    with pytest.raises(GateError) as caught:
        async with opened(url):
            pass
    return str(caught.value)


def refused(url: str) -> str:
    return asyncio.run(refusing(url))


# -- what is kept


def test_what_one_process_wrote_another_finds(server: RedisServer) -> None:
    async def main() -> None:
        later = time.time() + 600
        async with opened(server.url) as one, opened(server.url) as other:
            assert await one.keyring() == await other.keyring()
            await one.put(KEY, b"kept", expires=later)
            await one.put(b"gone", b"v", expires=later)
            await one.delete(b"gone")
            assert await one.claim(KEY, expires=later, value=b"first") is None
            assert other.peek(KEY) is None, "memory is a process's own"
            assert await other.get(KEY) == b"kept"
            assert other.peek(KEY) == b"kept"
            assert await other.get(b"gone") is None
            assert await other.claim(KEY, expires=later, value=b"second") == b"first"
            assert await one.add([job("a")], {OTHER: Kept(b"r", later)}, within=5)
            assert await other.depth() == {("k", False): 1}
            assert await other.get(OTHER) == b"r"

    asyncio.run(main())


def test_what_is_promised_outlives_a_kill_of_the_server(own: RedisServer) -> None:
    async def main() -> None:
        later = time.time() + 600
        async with opened(own.url) as store:
            master = await store.keyring()
            assert await store.claim(KEY, expires=later, value=b"first") is None
            assert await store.add([job("a")], within=5)
            own.stop(signal.SIGKILL)
        own.start()
        async with opened(own.url) as store:
            assert await store.keyring() == master
            assert await store.claim(KEY, expires=later) == b"first"
            assert await store.depth() == {("k", False): 1}

    asyncio.run(main())


def test_records_expire_in_the_server_too(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as store:
            await store.put(KEY, b"v", expires=time.time() + 60)
            await store.claim(KEY, expires=time.time() + 60)
        left = {name: int(server.ask("PTTL", b"gate:" + name)[1:]) for name in (b"r:" + KEY,)}
        assert 0 < left[b"r:" + KEY] <= 60_001
        assert int(server.ask("PTTL", b"gate:c:" + KEY)[1:]) > 0
        assert server.ask("PTTL", "gate:secret:master") == b":-1\r\n"

    asyncio.run(main())


def test_what_is_wanted_at_once_is_asked_for_at_once(server: RedisServer) -> None:
    keys = [number.to_bytes(16, "big") for number in range(400)]

    async def main() -> None:
        async with opened(server.url, capacity=1000) as one:
            for key in keys:
                await one.put(key, key, expires=time.time() + 600)
        async with opened(server.url, capacity=1000) as store:
            for _ in range(5):  # again where the machine was busy with something else
                server.ask("CONFIG", "RESETSTAT")
                found = await asyncio.gather(*(store.get(key) for key in keys))
                if found == keys:
                    break
            assert found == keys
            assert await asyncio.gather(*(store.get(key) for key in keys)) == keys

    asyncio.run(main())
    assert b"cmdstat_mget:calls=1," in server.ask("INFO", "commandstats")


# -- other processes


def test_what_is_erased_in_one_process_is_gone_from_the_memory_of_the_others(
    server: RedisServer,
) -> None:
    """J4: and Redis's file is written anew, without it."""

    async def main() -> None:
        later = time.time() + 600
        async with opened(server.url) as one, opened(server.url) as other:
            await one.put(KEY, b"canary-of-jane", expires=later)
            await one.add([job("a")], within=5)
            await asyncio.sleep(0.1)
            assert await other.get(KEY) == b"canary-of-jane"
            assert await one.erase([KEY], subjects=[b"jane"]) == [b"a"]
            assert await one.get(KEY) is None
            async with asyncio.timeout(STORE_NEWS + 2):
                while other.peek(KEY) is not None:  # noqa: ASYNC110 - a store tells nobody
                    await asyncio.sleep(0.02)
            assert await other.get(KEY) is None
            assert await other.depth() == {}
            files = server.folder / "appendonlydir"
            async with asyncio.timeout(10):
                while any(  # noqa: ASYNC110 - nor does Redis
                    b"canary" in file.read_bytes() for file in files.iterdir()
                ):
                    await asyncio.sleep(0.05)

    asyncio.run(main())


def test_a_server_that_lost_its_data_gets_the_master_key_back(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as store, FaultyProxy(("127.0.0.1", server.port)) as proxy:
            master = await store.keyring()
            server.ask("FLUSHALL")
            async with opened(server.url_of(0, port=proxy.address[1])) as late:
                assert await late.keyring() != master, "it could not know"
                server.ask("FLUSHALL")
                server.ask("SET", "gate:secret:master", bytes(32))
                proxy.reset()
                await until(late, healthy=False)
                async with asyncio.timeout(10):
                    while "restart this one" not in (late.trouble or ""):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                server.ask("DEL", "gate:secret:master")
                await until(late, healthy=True)
                assert server.ask("EXISTS", "gate:secret:master") == b":1\r\n"

    asyncio.run(main())


# -- what is looked at before a server is used


def test_the_wrong_eviction_policy_is_refused_with_what_to_do(server: RedisServer) -> None:
    """L5: allkeys-lru eats the queue."""
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    text = refused(server.url)
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert "allkeys-lru" in text and "set maxmemory-policy noeviction" in text


def test_a_server_that_forgets_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def main(url: str) -> None:
        async with opened(url) as store:
            assert store.healthy

    with redis_server() as forgetful, caplog.at_level(logging.WARNING, "gate.store"):
        asyncio.run(main(forgetful.url))
    (record,) = caplog.records
    assert "appendonly yes" in record.message and "last second" in record.message


def test_a_replica_and_a_cluster_are_refused(server: RedisServer) -> None:
    server.ask("REPLICAOF", "127.0.0.1", "1")
    text = refused(server.url)
    server.ask("REPLICAOF", "NO", "ONE")
    assert "name the primary" in text
    port = str(free_port())  # else it takes its own plus 10,000, which may be too high
    with redis_server("--cluster-enabled", "yes", "--cluster-port", port) as cluster:
        assert "is a cluster" in refused(cluster.url)


GOOD = Server((7, 0, 15), "noeviction", True, False, True, 0.0, 0.0)
SERVERS = {
    "good": (GOOD, None),
    "the oldest that will do": (GOOD._replace(version=(6, 2)), None),
    "too old": (GOOD._replace(version=(6, 0, 16)), "6.2 or newer"),
    "volatile-ttl": (GOOD._replace(policy="volatile-ttl"), "noeviction"),
    "hides its policy": (GOOD._replace(policy="unknown"), "noeviction"),
}


@pytest.mark.parametrize("seen, why", SERVERS.values(), ids=SERVERS)
def test_which_server_may_hold_a_store(seen: Server, why: str | None) -> None:
    said = refusal(seen)
    assert said is None if why is None else why in (said or "")


def test_a_clock_that_is_off_is_a_doubt() -> None:
    assert doubts(GOOD) == []
    assert "behind" in doubts(GOOD._replace(skew=-7.0))[0]
    assert "ahead of" in doubts(GOOD._replace(skew=7.0))[0]


def test_logins_that_fail_say_so_and_show_no_password(own: RedisServer) -> None:
    own.ask(
        "ACL",
        "SETUSER",
        "gate",
        "on",
        f">{SECRET}",
        "~gate:*",
        "+@all",
        "-@dangerous",
        "+info",
        "+bgrewriteaof",
    )
    own.ask("ACL", "SETUSER", "poor", "on", f">{SECRET}", "~gate:*", "+get", "+info", "+time")
    own.ask("CONFIG", "SET", "requirepass", "other" + SECRET)
    cases = {
        "": "asks for a login",
        f"gate:wrong-{SECRET}@": "look at user and password",
        f"nobody:{SECRET}@": "look at user and password",
        f"poor:{SECRET}@": "ACL SETUSER",
    }
    for login, words in cases.items():
        text = refused(own.url_of(0, login))
        assert words in text, text
        assert SECRET not in text

    async def main() -> None:
        async with opened(own.url_of(0, f"gate:{SECRET}@")) as store:
            assert await store.claim(KEY, expires=time.time() + 60) is None
            assert await store.add([job("a")], within=5)
            assert await store.erase([KEY], subjects=[b"jane"]) == [b"a"]
            assert store.healthy, store.trouble

    asyncio.run(main())


def test_places_where_no_redis_is(server: RedisServer) -> None:
    async def main() -> list[str]:
        async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async def opening(peer: Callable[..., Awaitable[None]]) -> str:
            peers = await asyncio.start_server(peer, "127.0.0.1", 0)
            port = peers.sockets[0].getsockname()[1]
            start = time.monotonic()
            with pytest.raises(GateError) as caught:
                await open_store(f"redis://127.0.0.1:{port}", wall=time.time, capacity=10)
            assert time.monotonic() - start < STORE_OPEN + 0.5
            await asyncio.sleep(0.01)  # until the peer has seen that we are gone
            peers.close()
            await peers.wait_closed()
            return str(caught.value)

        others = ["redis://127.0.0.1:9/0", server.url_of(4711), "redis://no-such-host.invalid/0"]
        others.append(server.url.replace("redis:", "rediss:"))
        return await asyncio.gather(
            opening(http), opening(silent), *(refusing(url) for url in others)
        )

    http, silent, nobody, numbered, nameless, plain = asyncio.run(main())
    assert "speaks another protocol" in http
    assert "did not answer" in silent
    assert "connection refused" in nobody
    assert "number" in numbered
    assert "name is not known" in nameless
    assert "does not answer" in plain


def test_tls_proves_the_server(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    tls = ["--tls-port", "0", "--tls-cert-file", str(tmp_path / "cert.pem")]
    tls += ["--tls-key-file", str(tmp_path / "key.pem"), "--tls-auth-clients", "no"]
    tls += ["--tls-ca-cert-file", str(tmp_path / "ca.pem")]

    async def main(url: str) -> None:
        async with opened(url) as store:
            assert await store.claim(KEY, expires=time.time() + 60) is None

    with redis_server(*tls) as server:
        port = free_port()
        assert server.ask("CONFIG", "SET", "tls-port", str(port)) == b"+OK\r\n"
        url = f"rediss://localhost:{port}/0"
        asyncio.run(main(f"{url}?ca={tmp_path / 'ca.pem'}"))
        assert "certificate" in refused(url)
        assert "name a PEM file" in refused(f"{url}?ca={tmp_path / 'none.pem'}")
        assert "name a PEM file" in refused(f"{url}?ca={tmp_path / 'key.pem'}")


# -- outages


def test_a_silent_server_costs_half_a_second_once_and_then_nothing(own: RedisServer) -> None:
    """L5: the circuit. Everything is answered from memory, and written when it is back."""

    async def main() -> None:
        later = time.time() + 600
        async with opened(own.url) as store:
            await store.put(KEY, b"held", expires=later)
            own.send(signal.SIGSTOP)
            start = time.monotonic()
            assert await store.get(b"missing") is None
            assert time.monotonic() - start < STORE_WAIT + 0.1
            await until(store, healthy=False)
            assert time.monotonic() - start < STORE_ANSWER + STORE_NEWS + 0.5
            assert "see whether Redis runs" in (store.trouble or "")
            took = []
            for number in range(200):
                start = time.perf_counter()
                assert await store.get(b"missing %d" % number) is None
                assert store.peek(KEY) == b"held"
                assert await store.claim(b"%d" % number, expires=later, value=b"me") is None
                took.append(time.perf_counter() - start)
            assert sorted(took)[100] < 0.001
            await store.put(OTHER, b"v", expires=later)
            assert not await store.add([job("a")], within=0.1)
            own.send(signal.SIGCONT)
            back = time.monotonic()
            await until(store, healthy=True)
            assert time.monotonic() - back < STORE_RETRY + STORE_OPEN + 0.5
            async with opened(own.url) as other:
                assert await other.get(OTHER) == b"v"
                assert await other.claim(b"7", expires=later) == b"me"
                assert await other.depth() == {("k", False): 1}
        assert store.failures > 0

    asyncio.run(main())


def test_an_outage_that_fills_memory_is_written_behind_without_stalling(own: RedisServer) -> None:
    async def main() -> None:
        later = time.time() + 600
        async with opened(own.url, capacity=100) as store:
            own.stop()
            await until(store, healthy=False)
            for number in range(UNWRITTEN + 10):
                await store.put(number.to_bytes(16, "big"), bytes(60), expires=later)
            for number in range(3000):
                assert await store.claim(number.to_bytes(16, "big"), expires=later) is None
            own.start()
            async with LoopLag() as lag:
                await until(store, healthy=True)
            assert lag.worst() < 0.25
        assert int(own.ask("DBSIZE")[1:]) >= UNWRITTEN + 3000

    asyncio.run(main())


ILLS = {
    "out of memory": (
        ("CONFIG", "SET", "maxmemory", "1"),
        ("CONFIG", "SET", "maxmemory", "0"),
        "raise maxmemory",
    ),
    "a replica now": (
        ("REPLICAOF", "127.0.0.1", "1"),
        ("REPLICAOF", "NO", "ONE"),
        "name the primary",
    ),
}


@pytest.mark.parametrize("ill, cure, words", ILLS.values(), ids=ILLS)
def test_a_server_that_takes_no_writes_says_why_and_heals(
    own: RedisServer, ill: tuple[str, ...], cure: tuple[str, ...], words: str
) -> None:
    async def main() -> None:
        async with opened(own.url) as store:
            own.ask(*ill)
            await store.put(KEY, b"v", expires=time.time() + 600)
            await until(store, healthy=False)
            assert words in (store.trouble or "")
            own.ask(*cure)
            start = time.monotonic()
            await until(store, healthy=True)
            assert time.monotonic() - start < 5
            async with opened(own.url) as other:
                assert await other.get(KEY) == b"v"

    asyncio.run(main())


def test_scripts_that_were_flushed_are_loaded_again(own: RedisServer) -> None:
    async def main() -> None:
        async with opened(own.url) as store:
            own.ask("SCRIPT", "FLUSH")
            await store.claim(KEY, expires=time.time() + 60, value=b"me")
            await until(store, healthy=True)
            assert await store.claim(OTHER, expires=time.time() + 60) is None
            assert own.ask("EXISTS", b"gate:c:" + KEY) == b":1\r\n"

    asyncio.run(main())


def test_what_comes_through_a_bad_network_is_right_or_missing(server: RedisServer) -> None:
    """Slow, cut in small pieces, reset in the middle: never somebody else's."""
    keys = [number.to_bytes(16, "big") for number in range(50)]

    async def through(faults: Faults) -> int:
        found = 0
        async with FaultyProxy(("127.0.0.1", server.port)) as proxy:
            async with opened(server.url_of(0, port=proxy.address[1]), capacity=2) as store:
                proxy.faults = faults
                for _ in range(3):
                    values = await asyncio.gather(*map(store.get, keys))
                    for value, key in zip(values, keys, strict=True):
                        assert value in (None, key * 20)
                        found += value is not None
                proxy.reset()
                await until(store, healthy=False)
                proxy.faults = Faults()
                await until(store, healthy=True)
        return found

    async def main() -> None:
        async with opened(server.url) as writer:
            for key in keys:
                await writer.put(key, key * 20, expires=time.time() + 600)
        networks = Faults(slices=7), Faults(latency=0.02), Faults(slices=64, pause=0.001)
        assert sum(await asyncio.gather(*map(through, networks))) > 50

    asyncio.run(main())


# -- URLs

URLS = {
    "redis://h": RedisUrl("h"),
    "redis://h:1/2": RedisUrl("h", 1, 2),
    "redis://u:p%40ss@h": RedisUrl("h", user="u", password="p@ss"),
    "redis://:p@h/": RedisUrl("h", password="p"),
    "rediss://[::1]:7/0?ca=/a/b.pem": RedisUrl("::1", 7, 0, True, "/a/b.pem"),
}


@pytest.mark.parametrize("text", URLS)
def test_urls(text: str) -> None:
    assert parse(text) == URLS[text]


@pytest.mark.parametrize(
    "text", ["redis://u:s3cret@h:1/0", "redis://:s3cret@h", "redis://s3cret:x"]
)
def test_no_url_shows_its_password(text: str) -> None:
    assert "s3cret" not in without_password(text) + place_of(text)
    try:
        settings = parse_settings({"store": {"url": text}})
        assert settings.store.url == text
    except GateError as error:
        assert "s3cret" not in str(error)
    try:
        where = parse(text)
    except ValueError as error:
        assert "s3cret" not in str(error)
    else:
        assert "s3cret" not in f"{where} {where!r}"
