"""Sources: who meets which of our addresses, and how much an address may do."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.budget import SOURCE_DAY, SOURCE_NOTES, SOURCE_REST, SOURCE_REST_MOST
from gate.egress import Source
from gate.proxy import Proxy, parse
from gate.smtp.sources import Snapshot, Sources, allowance
from gate.testing import FakeClock

TODAY = date(2026, 11, 22)
NOON = (TODAY - date(1970, 1, 1)).days * SOURCE_DAY + SOURCE_DAY / 2
NAMES = [f"mx{number}.example.net" for number in range(2_000)]


def warm(number: int) -> Source:
    return Source(ip_address(f"192.0.2.{number}"), f"out{number}.example.com")


def cold(number: int, days: int = 0) -> Source:
    """An address whose first day was so many days ago."""
    source = warm(number)
    return Source(source.ip, source.helo, TODAY - timedelta(days))


def use_up(sources: Sources, source: Source) -> int:
    count = 0
    while sources.take(source):
        count += 1
    return count


def refuse(sources: Sources, source: Source, *destinations: str) -> float:
    """The rest that begins with the last of so many refusals."""
    return [sources.blocked(source, destination) for destination in destinations][-1]


# Who meets whom.


def test_a_destination_keeps_its_address_and_all_addresses_are_used_alike() -> None:
    sources = Sources([warm(1), warm(2), warm(3)], clock=FakeClock(NOON))
    first = {name: sources.choose(name) for name in NAMES}
    assert {name: sources.choose(name) for name in reversed(NAMES)} == first
    shares = Counter(first.values())
    assert len(shares) == 3
    assert min(shares.values()) > len(NAMES) / 3 * 0.85


def test_a_restart_finds_the_same_address_whatever_the_order_of_the_settings() -> None:
    one = Sources([warm(1), warm(2), warm(3)], clock=FakeClock(NOON))
    other = Sources([warm(3), warm(1), warm(2)], clock=FakeClock(NOON + 1000))
    assert [one.choose(name) for name in NAMES] == [other.choose(name) for name in NAMES]


def test_an_address_that_is_added_takes_its_share_and_moves_nobody_else() -> None:
    before = Sources([warm(1), warm(2), warm(3)], clock=FakeClock(NOON))
    after = Sources([warm(1), warm(2), warm(3), warm(4)], clock=FakeClock(NOON))
    moved = [name for name in NAMES if before.choose(name) != after.choose(name)]
    assert all(after.choose(name) == warm(4) for name in moved)
    assert 0.2 < len(moved) / len(NAMES) < 0.3


def test_a_new_address_is_given_few_destinations_while_it_may_do_little() -> None:
    sources = Sources([warm(1), cold(2)], clock=FakeClock(NOON))
    assert sum(sources.choose(name) == cold(2) for name in NAMES) < len(NAMES) * 0.01


@given(st.text(max_size=60), st.sets(st.integers(1, 250), min_size=1, max_size=8), st.booleans())
@settings(max_examples=60)
def test_whatever_it_is_called_it_keeps_its_address_until_that_is_gone(
    name: str, numbers: set[int], backwards: bool
) -> None:
    pool = [warm(number) for number in sorted(numbers, reverse=backwards)]
    sources = Sources(pool, clock=FakeClock(NOON))
    chosen = sources.choose(name)
    assert chosen is not None
    assert sources.choose(name) is chosen
    left = [source for source in pool if source is chosen or source.ip != pool[0].ip]
    assert Sources(left, clock=FakeClock(NOON)).choose(name) == chosen


# Families.

FOUR, SIX = warm(1), Source(ip_address("2001:db8::6"), "six.example.com")


@pytest.mark.parametrize(
    ("versions", "possible"),
    [
        ({4}, {FOUR}),
        ({6}, {SIX}),
        ({4, 6}, {FOUR, SIX}),
    ],
)
def test_a_host_meets_an_address_of_a_family_it_has(
    versions: set[int], possible: set[Source]
) -> None:
    sources = Sources([FOUR, SIX], clock=FakeClock(NOON))
    assert {sources.choose(name, versions) for name in NAMES[:100]} == possible


def test_a_destination_whose_hosts_change_family_keeps_one_address_of_each() -> None:
    sources = Sources([FOUR, warm(2), SIX], clock=FakeClock(NOON))
    six, four = sources.choose("mx", {6}), sources.choose("mx", {4})
    assert six == SIX
    assert four in (FOUR, warm(2))
    for _ in range(3):
        assert sources.choose("mx", {6}) == six
        assert sources.choose("mx", {4}) == four
        assert sources.choose("mx", {4, 6}) == six


def test_without_an_address_of_the_family_any_is_given_for_the_dialler_to_refuse() -> None:
    assert Sources([FOUR], clock=FakeClock(NOON)).choose("mx", {6}) == FOUR


def test_the_system_chooses_for_both_families() -> None:
    system = Source(None, "gate.example.com")
    sources = Sources([system], clock=FakeClock(NOON))
    assert sources.choose("mx", {4}) == sources.choose("mx", {6}) == system


# Warming up.


@pytest.mark.parametrize(
    ("age", "most"),
    [(-1, 0), (0, 50), (1, 100), (2, 200), (3, 400), (8, 12_800), (9, None), (40_000, None)],
)
def test_a_new_address_may_do_twice_as_much_each_day(age: int, most: int | None) -> None:
    since = date(1970, 1, 1) + timedelta(1000)
    assert allowance(since, 1000 + age) == most


def test_an_address_without_a_first_day_is_warm() -> None:
    assert allowance(None, 20_000) is None


def test_an_address_does_no_more_than_its_day_and_the_next_begins_at_midnight_utc() -> None:
    clock = FakeClock(NOON)
    sources = Sources([cold(1)], clock=clock)
    assert sources.left(cold(1)) == 50
    assert use_up(sources, cold(1)) == 50
    assert sources.choose("mx") is None
    clock.advance(SOURCE_DAY / 2 - 1)
    assert not sources.take(cold(1))
    clock.advance(1)
    assert sources.choose("mx") == cold(1)
    assert use_up(sources, cold(1)) == 100


def test_a_clock_that_is_set_back_gives_nothing_back() -> None:
    clock = FakeClock(NOON)
    sources = Sources([cold(1)], clock=clock)
    use_up(sources, cold(1))
    clock.advance(-2 * SOURCE_DAY)
    assert not sources.take(cold(1))


def test_who_has_met_an_address_is_not_handed_on_when_its_day_is_used_up() -> None:
    sources = Sources([cold(1), cold(2)], clock=FakeClock(NOON))
    met = [name for name in NAMES if sources.choose(name) == cold(1)]
    assert use_up(sources, cold(1)) == 50
    assert {sources.choose(name) for name in met} == {None}
    new = [f"new-{name}" for name in NAMES[:100]]
    assert {sources.choose(name) for name in new} == {cold(2)}
    use_up(sources, cold(2))
    assert sources.choose("the-last-one.example") is None


# Resting.


def test_an_address_that_several_refuse_rests_and_newcomers_meet_another() -> None:
    clock = FakeClock(NOON)
    sources = Sources([warm(1), warm(2)], clock=clock)
    met = [name for name in NAMES[:200] if sources.choose(name) == warm(1)]
    assert refuse(sources, warm(1), "a", "b") == 0
    assert refuse(sources, warm(1), "c") == SOURCE_REST
    assert sources.resting(warm(1)) == SOURCE_REST
    assert {sources.choose(name) for name in met} == {None}
    assert not sources.take(warm(1))
    new = [f"new-{name}" for name in NAMES[:200]]
    assert {sources.choose(name) for name in new} == {warm(2)}
    clock.advance(SOURCE_REST)
    assert {sources.choose(name) for name in met} == {warm(1)}
    assert {sources.choose(name) for name in new} == {warm(2)}, "they keep whom they met"


NO_REST = {
    "the same one again and again": [("refused", "a")] * 9,
    "two": [("refused", "a"), ("refused", "b")],
    "one of them spoke to us since": [
        ("refused", "a"),
        ("refused", "b"),
        ("welcomed", "a"),
        ("refused", "c"),
    ],
    "few of many": [("welcomed", f"fine{n}") for n in range(13)]
    + [("refused", "a"), ("refused", "b"), ("refused", "c")],
    "not within an hour": [
        ("refused", "a"),
        ("refused", "b"),
        ("wait", str(SOURCE_NOTES + 1)),
        ("refused", "c"),
    ],
}


@pytest.mark.parametrize("story", NO_REST.values(), ids=NO_REST)
def test_no_reason_to_rest(story: list[tuple[str, str]]) -> None:
    clock = FakeClock(NOON)
    sources = Sources([warm(1), warm(2)], clock=clock)
    for what, about in story:
        if what == "wait":
            clock.advance(float(about))
        elif what == "refused":
            assert sources.blocked(warm(1), about) == 0
        else:
            sources.welcomed(warm(1), about)
    assert sources.resting(warm(1)) == 0


def test_a_single_address_never_rests() -> None:
    sources = Sources([warm(1)], clock=FakeClock(NOON))
    assert refuse(sources, warm(1), *NAMES[:100]) == 0


def test_rests_double_up_to_a_day_and_begin_anew_after_a_good_one() -> None:
    clock = FakeClock(NOON)
    sources = Sources([warm(1), warm(2)], clock=clock)
    rests = []
    for _ in range(7):
        rests.append(refuse(sources, warm(1), "a", "b", "c"))
        assert refuse(sources, warm(1), "d", "e", "f") == 0, "it rests already"
        clock.advance(rests[-1])
    assert rests == [SOURCE_REST * n for n in (1, 2, 4, 8, 16, 24, 24)]
    clock.advance(SOURCE_REST_MOST)
    assert refuse(sources, warm(1), "a", "b", "c") == SOURCE_REST


# What outlives the process.


def again(sources: Sources, pool: list[Source], clock: FakeClock) -> Sources:
    """The sources of the next process."""
    later = Sources(pool, clock=clock)
    later.restore(sources.snapshot())
    return later


def test_a_restart_gives_no_day_anew_ends_no_rest_and_moves_nobody_back() -> None:
    clock = FakeClock(NOON)
    pool = [cold(1, days=1), warm(2), warm(3)]
    sources = Sources(pool, clock=clock)
    for _ in range(60):
        sources.take(cold(1, days=1))
    refuse(sources, warm(2), "a", "b", "c")
    newcomers = [name for name in NAMES if sources.choose(name) == warm(3)]
    clock.advance(60)
    later = again(sources, pool, clock)
    assert later.left(pool[0]) == 40
    assert later.resting(warm(2)) == SOURCE_REST - 60
    clock.advance(SOURCE_REST)
    assert {later.choose(name) for name in newcomers[-500:]} == {warm(3)}


def test_changes_are_counted_so_that_nothing_is_kept_for_warm_addresses() -> None:
    sources = Sources([warm(1), cold(2)], clock=FakeClock(NOON))
    sources.take(warm(1))
    assert sources.changes == 0
    sources.take(cold(2))
    assert sources.changes == 1


def test_addresses_that_are_no_more_are_forgotten() -> None:
    clock = FakeClock(NOON)
    sources = Sources([cold(1), cold(2)], clock=clock)
    use_up(sources, cold(1))
    later = again(sources, [warm(3)], clock)
    assert later.snapshot() == Snapshot({}, {})
    assert later.choose("mx") == warm(3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["choose", "take", "refused", "welcomed", "wait", "restart"]),
            st.integers(0, 30),
        ),
        max_size=80,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_no_day_is_overdrawn_and_nobody_is_handed_on(
    story: list[tuple[str, int]],
) -> None:
    clock = FakeClock(NOON)
    pool = [cold(1), cold(2, days=1), warm(3)]
    sources = Sources(pool, clock=clock)
    met: dict[str, Source] = {}
    done: Counter[tuple[Source, int]] = Counter()
    for what, number in story:
        name, source = f"mx{number}.example.net", pool[number % 3]
        if what == "choose":
            chosen = sources.choose(name)
            if chosen is not None:
                assert met.setdefault(name, chosen) == chosen
                assert sources.resting(chosen) == 0
        elif what == "take":
            for _ in range(number * 5):
                if sources.take(source):
                    done[source, int(clock() // SOURCE_DAY)] += 1
        elif what == "refused":
            sources.blocked(source, name)
        elif what == "welcomed":
            sources.welcomed(source, name)
        elif what == "wait":
            clock.advance(number * 600)
        else:
            sources = again(sources, pool, clock)
            met.clear()
    for (source, day), count in done.items():
        most = allowance(source.since, day)
        assert most is None or count <= most


# The proxy of an address.


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("socks5://127.0.0.1:1080", Proxy(ip_address("127.0.0.1"), 1080)),
        ("socks5://10.0.0.5:1080/", Proxy(ip_address("10.0.0.5"), 1080)),
        ("socks5://me:s3cret@[::1]:9050", Proxy(ip_address("::1"), 9050, "me", "s3cret")),
        ("socks5://a%40b:p%3Aq@127.0.0.1:1", Proxy(ip_address("127.0.0.1"), 1, "a@b", "p:q")),
    ],
)
def test_the_url_of_a_proxy_is_read(url: str, proxy: Proxy) -> None:
    assert parse(url) == proxy


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:s3cret@127.0.0.1:1080", "no SOCKS5 URL"),
        ("socks4://127.0.0.1:1080", "no SOCKS5 URL"),
        ("127.0.0.1:1080", "no SOCKS5 URL"),
        ("socks5://me:s3cret@127.0.0.1:1080/way", "no SOCKS5 URL"),
        ("socks5://me:s3cret@proxy.example:1080", "no IP address"),
        ("socks5://me:s3cret@127.0.0.1", "no port"),
        ("socks5://me:s3cret@127.0.0.1:0", "no port"),
        ("socks5://me:s3cret@127.0.0.1:99999", "no URL"),
        ("socks5://me:s3cret@[::1", "no URL"),
        ("socks5://s3cret@127.0.0.1:1080", "user without a password"),
        ("socks5://:s3cret@127.0.0.1:1080", "user without a password"),
        ("socks5://me:s3cret%C3%BC@127.0.0.1:1080", "ASCII"),
        (f"socks5://me:s3cret{'x' * 250}@127.0.0.1:1080", "255"),
    ],
)
def test_another_is_refused_without_a_word_of_it(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        parse(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_password_is_in_no_text_of_proxy_or_source() -> None:
    proxy = parse("socks5://someone:s3cret@127.0.0.1:1080")
    source = Source(ip_address("192.0.2.1"), "out1.example.com", None, proxy)
    texts = [str(proxy), repr(proxy), repr(source), str(source), source.name, f"{source}"]
    assert not any("s3cret" in text or "someone" in text for text in texts)
    assert source.name == "192.0.2.1 by way of 127.0.0.1:1080"
