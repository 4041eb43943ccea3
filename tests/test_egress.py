from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.budget import HAPPY_EYEBALLS, Deadline
from gate.egress import (
    SMTP_PORT,
    WEB_PORTS,
    Dialer,
    Egress,
    IPAddress,
    NoConnect,
    Source,
    Unroutable,
    classify,
    open_resolver_tcp,
    open_resolver_udp,
    own_addresses,
)
from gate.special import SpecialNetwork, special_networks

BLOCKED = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.170 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1
192.88.99.1 192.168.0.1 192.175.48.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 233.252.0.1
239.255.255.255 240.0.0.1 255.255.255.255 100.100.100.200 168.63.129.16
:: ::1 ::2 ::127.0.0.1 ::ffff:8.8.8.8 ::ffff:127.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::8.8.8.8
64:ff9b::808:808 64:ff9b::7f00:1 64:ff9b::127.0.0.1 64:ff9b:1::1 64:ff9b:1::7f00:1 100::1
100:0:0:1::1 2001::1 2001:0:7f00:1:: 2001:0:7f00:1::1 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1
2001:10::1 2001:20::1 2001:30::1 2001:db8::1 2002:7f00:1:: 2002:7f00:1::1 2002:808:808::1
2620:4f:8000::1 3ffe::1 3fff::1 4000::1 5f00::1 8000::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1
fe80::1%eth0 fe80::5efe:127.0.0.1 2606:4700::5efe:127.0.0.1 2606:4700::200:5efe:10.0.0.1
2606:4700:4700::1111%eth0 febf::1 fec0::1 ff02::1 ff0e::1
""".split()

ALLOWED = """
1.1.1.1 8.8.8.8 100.63.255.254 100.128.0.1 172.15.255.255 172.32.0.1 192.169.0.1 198.17.255.255
198.20.0.1 223.255.255.255 9.255.255.255 11.0.0.1 126.255.255.255 128.0.0.1 169.253.255.255
169.255.0.1 192.0.1.1 192.0.3.1 168.63.129.15 168.63.129.17 2001:4860:4860::8888
2606:4700:4700::1111 2001:200::1 2003::1 2620:4f:8001::1 2a00:1450::1 2000::1 3fff:1000::1
""".split()

CLASSES = [
    ("127.0.0.1", Egress.LOOPBACK),
    ("::1", Egress.LOOPBACK),
    ("10.1.2.3", Egress.PRIVATE),
    ("fd12::1", Egress.PRIVATE),
    ("fec0::1", Egress.PRIVATE),
    ("100.64.0.1", Egress.SHARED),
    ("100.100.100.200", Egress.METADATA),
    ("169.254.1.1", Egress.LINK_LOCAL),
    ("169.254.169.254", Egress.METADATA),
    ("fd00:ec2::254", Egress.METADATA),
    ("fe80::1%eth0", Egress.ZONED),
    ("64:ff9b::808:808", Egress.EMBEDDED),
    ("2606:4700::5efe:127.0.0.1", Egress.EMBEDDED),
    ("233.252.0.1", Egress.DOCUMENTATION),
    ("224.0.0.1", Egress.MULTICAST),
    ("255.255.255.255", Egress.BROADCAST),
    ("240.0.0.1", Egress.RESERVED),
    ("8000::1", Egress.UNASSIGNED),
    ("8.8.8.8", Egress.PUBLIC),
]

GOOD = ip_address("8.8.8.8")
GOOD6 = ip_address("2606:4700:4700::1111")
SOURCE = Source(None, "gate.example.com")
DENIED = [row for row in special_networks() if not row.egress.allowed]


# What an address is.


@pytest.mark.parametrize("text", BLOCKED)
def test_a_special_address_is_denied(text: str) -> None:
    assert not classify(ip_address(text)).allowed


@pytest.mark.parametrize("text", ALLOWED)
def test_its_public_neighbour_is_allowed(text: str) -> None:
    assert classify(ip_address(text)) is Egress.PUBLIC


@pytest.mark.parametrize(("text", "egress"), CLASSES)
def test_the_most_specific_class_is_named(text: str, egress: Egress) -> None:
    assert classify(ip_address(text)) is egress


@st.composite
def inside_a_denied_network(draw: st.DrawFn) -> IPAddress:
    network = draw(st.sampled_from(DENIED)).network
    inside = draw(st.integers(0, network.num_addresses - 1))
    return network[0] + inside if network.prefixlen else ip_address(int(IPv6Address("4000::")))


@given(inside_a_denied_network())
def test_no_address_of_a_denied_network_is_allowed(ip: IPAddress) -> None:
    assert not classify(ip).allowed


@given(
    st.one_of(
        st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)
    )
)
def test_what_python_calls_not_global_is_denied_too(ip: IPAddress) -> None:
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        assert not classify(ip).allowed


@pytest.mark.parametrize("row", DENIED, ids=lambda row: str(row.network))
def test_the_edges_of_each_row_are_denied_and_a_source_is_given(row: SpecialNetwork) -> None:
    assert row.name and row.source
    if row.network.prefixlen:
        assert not classify(row.network[0]).allowed
        assert not classify(row.network[-1]).allowed


def test_the_operators_list_wins_over_the_table_and_over_own_addresses() -> None:
    allow = [ip_network("127.0.0.0/8"), ip_network("8.8.8.8/32")]
    assert classify(ip_address("127.0.0.1"), allow=allow) is Egress.OPERATOR
    assert classify(GOOD, allow=allow, own={GOOD}) is Egress.OPERATOR
    assert classify(ip_address("10.0.0.1"), allow=allow) is Egress.PRIVATE


def test_a_zone_id_is_denied_even_when_the_operator_allows_the_network() -> None:
    allow = [ip_network("fe80::/10")]
    assert classify(ip_address("fe80::1%lo"), allow=allow) is Egress.ZONED


def test_a_public_address_of_this_machine_is_denied() -> None:
    assert classify(GOOD, own={GOOD}) is Egress.OWN


def test_own_addresses_hold_those_a_listener_can_bind_to() -> None:
    found = own_addresses()
    assert found
    for ip in found:
        if not ip.is_link_local:
            family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
            with socket.socket(family) as sock:
                sock.bind((str(ip), 0))


# Dialling.


class Peer(asyncio.Protocol):
    """Counts who connects, and keeps the connections to close them."""

    def __init__(self, accepted: list[asyncio.Transport]) -> None:
        self.accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.accepted.append(transport)


@asynccontextmanager
async def listening(
    host: str = "127.0.0.1",
) -> AsyncIterator[tuple[tuple[str, int], list[asyncio.Transport]]]:
    """A listener that accepts everything. At the end no task of the test may be left."""
    accepted: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Peer(accepted), host, 0)
    try:
        yield server.sockets[0].getsockname()[:2], accepted
    finally:
        for transport in accepted:
            transport.abort()
        server.close()
        await server.wait_closed()
    for _ in range(10):  # the loop's own accepting of a connection that was dropped at once
        if len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """A loopback address that answers no SYN: a listener whose queue is full."""
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        yield listener.getsockname()


def seam_to(where: tuple[str, int]) -> Callable[[IPAddress, int], tuple[str, int]]:
    return lambda ip, port: where


def dial(dialer: Dialer, addresses: Sequence[IPAddress], seconds: float = 2.0) -> IPAddress:
    """Dial beside nothing, close at once, and say which address it was."""

    async def scene() -> IPAddress:
        return await dial_and_close(dialer, addresses, seconds)

    return asyncio.run(scene())


async def dial_and_close(
    dialer: Dialer, addresses: Sequence[IPAddress], seconds: float = 2.0
) -> IPAddress:
    deadline = Deadline.after(seconds, time.monotonic)
    transport, _, ip = await dialer.dial(
        asyncio.Protocol, addresses, source=dialer.sources[0], deadline=deadline
    )
    transport.abort()
    await asyncio.sleep(0)
    return ip


@pytest.mark.parametrize("text", BLOCKED)
def test_a_denied_address_is_never_connected_to(text: str) -> None:
    async def scene() -> None:
        async with listening() as (where, accepted):
            blocked: list[Egress] = []
            dialer = Dialer(sources=[SOURCE], seam=seam_to(where), on_blocked=blocked.append)
            with pytest.raises(Unroutable) as caught:
                await dial_and_close(dialer, [ip_address(text)])
            assert [egress for _, egress in caught.value.blocked] == blocked
            assert len(blocked) == 1
            assert accepted == []

    asyncio.run(scene())


def test_no_random_denied_address_gets_through() -> None:
    dice = random.Random(7)
    dialer = Dialer(sources=[SOURCE])
    for _ in range(50_000 // len(DENIED)):
        for row in DENIED:
            if row.network.prefixlen:
                ip = row.network[dice.randrange(row.network.num_addresses)]
                with pytest.raises(Unroutable):
                    dialer.vet([ip])


def test_of_a_mixed_set_only_the_public_one_is_dialled() -> None:
    async def scene() -> None:
        async with listening() as (where, accepted):
            asked: list[IPAddress] = []

            def seam(ip: IPAddress, port: int) -> tuple[str, int]:
                asked.append(ip)
                return where

            dialer = Dialer(sources=[SOURCE], seam=seam)
            ip = await dial_and_close(dialer, [ip_address("10.0.0.5"), GOOD, ip_address("::1")])
            assert ip == GOOD
            assert asked == [GOOD]
            assert len(accepted) == 1

    asyncio.run(scene())


@pytest.mark.parametrize("port", [0, 22, 443, 465, 587, 6379])
def test_another_port_is_refused_before_anything_is_vetted_or_opened(port: int) -> None:
    def seam(ip: IPAddress, port: int) -> tuple[str, int]:
        raise AssertionError("a socket was about to be made")

    async def scene() -> None:
        dialer = Dialer(sources=[SOURCE], seam=seam)
        deadline = Deadline.after(1.0, time.monotonic)
        with pytest.raises(ValueError, match="port 25 only"):
            await dialer.dial(asyncio.Protocol, [GOOD], source=SOURCE, deadline=deadline, port=port)

    asyncio.run(scene())


def test_a_dialler_of_web_ports_is_none_of_mail() -> None:
    async def scene() -> None:
        dialer = Dialer(sources=[SOURCE], ports=WEB_PORTS)
        deadline = Deadline.after(1.0, time.monotonic)
        with pytest.raises(ValueError, match="port 443, 80 only"):
            await dialer.dial(asyncio.Protocol, [GOOD], source=SOURCE, deadline=deadline)

    asyncio.run(scene())


def test_the_seam_is_asked_for_port_25() -> None:
    ports: list[int] = []

    def seam(ip: IPAddress, port: int) -> tuple[str, int]:
        ports.append(port)
        raise LookupError(ip)

    with pytest.raises(NoConnect, match="nothing answers"):
        dial(Dialer(sources=[SOURCE], seam=seam), [GOOD])
    assert ports == [SMTP_PORT]


def test_documentation_space_is_open_only_through_the_seam_and_only_where_it_maps() -> None:
    persona, other = ip_address("192.0.2.25"), ip_address("192.0.2.26")
    assert Dialer(sources=[SOURCE], seam_addresses=[persona]).classify(persona) is (
        Egress.DOCUMENTATION
    )
    dialer = Dialer(sources=[SOURCE], seam=seam_to(("127.0.0.1", 1)), seam_addresses=[persona])
    assert dialer.classify(persona) is Egress.SANDBOX
    assert dialer.classify(other) is Egress.DOCUMENTATION


def test_the_source_address_is_bound() -> None:
    async def scene() -> None:
        async with listening() as (where, accepted):
            source = Source(ip_address("127.0.0.9"), "nine.example.com")
            await dial_and_close(Dialer(sources=[source], seam=seam_to(where)), [GOOD])
            await asyncio.sleep(0)
            assert accepted[0].get_extra_info("peername")[0] == "127.0.0.9"

    asyncio.run(scene())


def test_a_host_of_the_other_family_only_is_no_connect() -> None:
    source = Source(ip_address("192.0.2.9"), "four.example.com")
    with pytest.raises(NoConnect, match="family"):
        dial(Dialer(sources=[source]), [GOOD6])


def closed_port() -> tuple[str, int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        return host, port


def test_a_refused_connection_is_no_connect() -> None:
    with pytest.raises(NoConnect, match="refused"):
        dial(Dialer(sources=[SOURCE], seam=seam_to(closed_port())), [GOOD])


def test_silence_is_no_connect_when_the_time_is_over() -> None:
    with black_hole() as where:
        dialer = Dialer(sources=[SOURCE], seam=seam_to(where))
        started = time.monotonic()
        with pytest.raises(NoConnect, match="timed out"):
            dial(dialer, [GOOD], seconds=0.2)
        assert 0.2 <= time.monotonic() - started < 0.4


def test_the_next_address_is_tried_when_the_first_refuses() -> None:
    async def scene() -> None:
        async with listening() as (where, accepted):
            dead = closed_port()
            dialer = Dialer(sources=[SOURCE], seam=lambda ip, _: dead if ip == GOOD else where)
            assert await dial_and_close(dialer, [GOOD, ip_address("8.8.4.4")]) == ip_address(
                "8.8.4.4"
            )
            assert len(accepted) == 1

    asyncio.run(scene())


def test_at_most_four_addresses_are_tried_and_the_families_are_balanced() -> None:
    tried: list[IPAddress] = []

    def seam(ip: IPAddress, port: int) -> tuple[str, int]:
        tried.append(ip)
        raise LookupError(ip)

    fours = [GOOD + n for n in range(2048)]
    sixes = [GOOD6 + n for n in range(9)]
    dialer = Dialer(sources=[SOURCE], seam=seam)
    with pytest.raises(NoConnect):
        dial(dialer, fours)
    assert tried == fours[:4]
    tried.clear()
    with pytest.raises(NoConnect):
        dial(dialer, [*fours, *sixes])
    assert tried == [*sixes[:2], *fours[:2]]


# Happy eyeballs: (what IPv6 does, what IPv4 does, who wins, at least, at most seconds).
RACES = [
    ("answers", "answers", GOOD6, 0.0, 0.15),
    ("hangs", "answers", GOOD, HAPPY_EYEBALLS, HAPPY_EYEBALLS + 0.15),
    ("refuses", "answers", GOOD, 0.0, 0.15),
    ("answers", "refuses", GOOD6, 0.0, 0.15),
    ("refuses", "refuses", None, 0.0, 0.15),
    ("hangs", "refuses", None, 0.5, 0.7),
    ("hangs", "hangs", None, 0.5, 0.7),
]


@pytest.mark.parametrize(("six", "four", "winner", "least", "most"), RACES)
def test_ipv6_has_a_head_start_and_a_dead_family_costs_only_that(
    six: str, four: str, winner: IPAddress | None, least: float, most: float
) -> None:
    async def scene() -> None:
        async with listening() as (where, accepted):
            with black_hole() as silent:
                leads = {"answers": where, "hangs": silent, "refuses": closed_port()}
                dialer = Dialer(
                    sources=[SOURCE], seam=lambda ip, _: leads[six if ip == GOOD6 else four]
                )
                started = time.monotonic()
                if winner is None:
                    with pytest.raises(NoConnect):
                        await dial_and_close(dialer, [GOOD, GOOD6], 0.5)
                else:
                    assert await dial_and_close(dialer, [GOOD, GOOD6], 0.5) == winner
                    assert len(accepted) == 1
                assert least <= time.monotonic() - started <= most

    asyncio.run(scene())


def test_a_cancelled_race_leaves_no_socket_and_no_task() -> None:
    async def scene() -> None:
        async with listening():
            with black_hole() as silent:
                dialer = Dialer(sources=[SOURCE], seam=seam_to(silent))
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(HAPPY_EYEBALLS + 0.1):
                        await dial_and_close(dialer, [GOOD, GOOD6], 5.0)

    asyncio.run(scene())


def test_a_public_address_that_turns_out_to_be_ours_is_dropped() -> None:
    """An address the interface got after start: the guard lets it pass, the connection tells."""
    mine = ip_address("127.0.0.1")

    class Late(Dialer):
        def classify(self, ip: IPAddress) -> Egress:
            return Egress.PUBLIC

    async def scene() -> None:
        async with listening() as (where, _):
            with pytest.raises(NoConnect, match="abort"):
                await dial_and_close(Late(sources=[SOURCE], seam=seam_to(where)), [mine])

    asyncio.run(scene())


# Resolvers.


def test_a_datagram_to_a_resolver_comes_back_and_strangers_are_not_heard() -> None:
    async def scene() -> None:
        heard: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
        ):
            server.setblocking(False)
            server.bind(("127.0.0.1", 0))
            ports = set()
            for _ in range(3):
                asking = open_resolver_udp(server.getsockname(), heard.put_nowait)
                asking.send(b"?")
                _, asker = await loop.sock_recvfrom(server, 10)
                ports.add(asker[1])
                stranger.sendto(b"forged", asker)
                server.sendto(b"!", asker)
                assert await heard.get() == b"!"
                asking.close()
            asking.close()
            assert len(ports) > 1

    asyncio.run(scene())


def test_nobody_at_the_resolvers_port_is_heard_of() -> None:
    async def scene() -> None:
        heard: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        asking = open_resolver_udp(closed_port(), heard.put_nowait)
        asking.send(b"?")
        assert isinstance(await heard.get(), ConnectionRefusedError)
        asking.close()

    asyncio.run(scene())


def test_a_resolver_is_reached_over_tcp() -> None:
    async def scene() -> None:
        async with listening() as (where, accepted):
            transport, _ = await open_resolver_tcp(where, asyncio.Protocol)
            assert transport.get_extra_info("peername")[:2] == where
            transport.abort()
            await asyncio.sleep(0)
            assert len(accepted) == 1

    asyncio.run(scene())


def test_a_dead_resolver_is_an_os_error_and_a_name_is_refused() -> None:
    async def scene() -> None:
        with pytest.raises(OSError, match="refused|failed"):
            await open_resolver_tcp(closed_port(), asyncio.Protocol)
        with pytest.raises(ValueError, match="does not appear"):
            await open_resolver_tcp(("localhost", 53), asyncio.Protocol)
        with pytest.raises(ValueError, match="does not appear"):
            open_resolver_udp(("localhost", 53), lambda _: None)

    asyncio.run(scene())


def test_the_table_is_sorted_so_that_the_longest_prefix_decides() -> None:
    lengths = [row.network.prefixlen for row in special_networks()]
    assert lengths == sorted(lengths, reverse=True)
