"""Who gives way among strangers: the oldest of an address that has too many, or of the address with the most."""

import random
from collections import Counter

import pytest

from transfer.lobby import Lobby, network_of


def test_there_is_room_for_all_until_there_is_not() -> None:
    lobby: Lobby[int] = Lobby(places_max=3, address_max=3)
    assert [lobby.enter(guest, "192.0.2.1") for guest in range(5)] == [None, None, None, 0, 1]
    assert len(lobby) == 3


def test_no_address_has_more_than_its_share() -> None:
    lobby: Lobby[int] = Lobby(places_max=10, address_max=2)
    assert [lobby.enter(guest, "192.0.2.1") for guest in range(4)] == [None, None, 0, 1]
    assert lobby.enter(9, "192.0.2.2") is None


def test_whoever_comes_alone_is_not_turned_out_by_a_crowd() -> None:
    lobby: Lobby[str] = Lobby(places_max=50, address_max=40)
    assert lobby.enter("honest", "198.51.100.7") is None
    for number in range(10_000):
        assert lobby.enter(f"bad {number}", f"192.0.2.{number % 3}") != "honest"
    assert len(lobby) == 50


def test_one_who_left_makes_room_and_may_leave_twice() -> None:
    lobby: Lobby[int] = Lobby(places_max=1, address_max=1)
    lobby.enter(1, "::1")
    lobby.leave(1)
    lobby.leave(1)
    assert (lobby.enter(2, "::1"), len(lobby)) == (None, 1)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("gone", "gone"),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(host: str, network: str) -> None:
    assert network_of(host) == network


@pytest.mark.parametrize("seed", range(20))
def test_its_bounds_hold_whatever_comes_and_goes(seed: int) -> None:
    chance = random.Random(seed)
    places_max, address_max = chance.randint(1, 12), chance.randint(1, 12)
    lobby: Lobby[int] = Lobby(places_max, address_max)
    inside: dict[int, str] = {}
    for guest in range(500):
        address = f"10.0.0.{chance.randint(1, 5)}"
        counts = Counter(inside.values())
        if (leaving := lobby.enter(guest, address)) is not None:
            assert counts[address] >= address_max or len(inside) >= places_max
            crowd = address if counts[address] >= address_max else max(counts.values())
            assert inside[leaving] == crowd or counts[inside[leaving]] == crowd
            assert leaving == min(one for one, where in inside.items() if where == inside[leaving])
            del inside[leaving]
        inside[guest] = address
        if chance.random() < 0.3:
            gone = chance.choice(sorted(inside))
            lobby.leave(gone)
            del inside[gone]
        assert len(lobby) == len(inside) <= places_max
        assert max(Counter(inside.values()).values(), default=0) <= address_max
