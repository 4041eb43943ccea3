"""Who the client is, behind whatever stands in front, and as what it is counted."""

from __future__ import annotations

import pytest

from gate.api.peer import Peers, counted_as

PROXY = "10.0.0.1"
PEERS = Peers(["10.0.0.0/8", "2001:db8:ffff::/48"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        pytest.param("198.51.100.7", None, "198.51.100.7", id="no proxy, no header"),
        pytest.param("198.51.100.7", "1.2.3.4", "198.51.100.7", id="header of a stranger"),
        pytest.param(PROXY, None, PROXY, id="proxy says nothing"),
        pytest.param(PROXY, "198.51.100.7", "198.51.100.7", id="one hop"),
        pytest.param(PROXY, "6.6.6.6, 198.51.100.7", "198.51.100.7", id="client wrote its own"),
        pytest.param(PROXY, "198.51.100.7, 10.0.0.2", "198.51.100.7", id="two trusted hops"),
        pytest.param(PROXY, "6.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7", id="both"),
        pytest.param(PROXY, "10.0.0.3, 10.0.0.2", "10.0.0.3", id="nobody but proxies"),
        pytest.param(PROXY, "198.51.100.7:99", "198.51.100.7", id="with a port"),
        pytest.param(PROXY, "[2001:db8::7]:99", "2001:db8::7", id="bracketed, with a port"),
        pytest.param(PROXY, "[::1]", "::1", id="bracketed"),
        pytest.param(PROXY, "2001:db8::7", "2001:db8::7", id="IPv6"),
        pytest.param(PROXY, "::ffff:198.51.100.7", "198.51.100.7", id="IPv4-mapped"),
        pytest.param("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7", id="proxy IPv4-mapped"),
        pytest.param("2001:db8:ffff::1", "198.51.100.7", "198.51.100.7", id="proxy IPv6"),
        pytest.param(PROXY, "unknown", PROXY, id="unknown"),
        pytest.param(PROXY, "6.6.6.6, unknown, 10.0.0.2", "10.0.0.2", id="unknown in between"),
        pytest.param(PROXY, "_hidden, 10.0.0.2", "10.0.0.2", id="obfuscated name"),
        pytest.param(PROXY, "", PROXY, id="empty"),
        pytest.param(PROXY, ",,,", PROXY, id="commas"),
        pytest.param(PROXY, "6.6.6.6, " * 2000 + "198.51.100.7", "198.51.100.7", id="20 kB"),
        pytest.param(PROXY, "6.6.6.6" + ", 10.0.0.2" * 9, "10.0.0.2", id="too many hops"),
        pytest.param(PROXY, "for=198.51.100.7", PROXY, id="RFC 7239 form"),
        pytest.param("", "198.51.100.7", "", id="no peer at all"),
    ],
)
def test_client_behind_proxies(peer: str, forwarded: str | None, client: str) -> None:
    assert PEERS.client(peer, forwarded) == client


def test_without_trusted_proxies_the_header_is_never_read() -> None:
    assert Peers(()).client("10.0.0.1", "1.2.3.4") == "10.0.0.1"


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        pytest.param("198.51.100.7", "198.51.100.7", id="IPv4"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="IPv6"),
        pytest.param("2001:db8:1:2::", "2001:db8:1:2::/64", id="IPv6, the same /64"),
        pytest.param("fe80::1%eth0", "fe80::/64", id="IPv6 with a zone"),
        pytest.param("::ffff:198.51.100.7", "198.51.100.7", id="IPv4-mapped"),
        pytest.param("", "unknown", id="none"),
        pytest.param("testclient", "unknown", id="no address"),
    ],
)
def test_counted_as(client: str, counted: str) -> None:
    assert counted_as(client) == counted
