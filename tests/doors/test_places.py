"""Who is known keeps its place while it works; who rests gives way; parties and the cluster's own have their shares."""

import pytest

from transfer.errors import BusyError
from transfer.places import REST_S, Places


def test_nobody_who_works_gives_way() -> None:
    places: Places[int] = Places(2, 2)
    assert [places.take(1, "a", 9.0), places.take(2, "b", 9.0)] == [None, None]
    with pytest.raises(BusyError, match="2 connections are open here"):
        places.take(3, "c", 9.0)
    places.leave(1)
    assert places.take(3, "c", 9.0) is None
    assert len(places) == 2


def test_the_one_that_rested_longest_gives_way() -> None:
    places: Places[int] = Places(3, 3)
    for guest in (1, 2, 3):
        places.take(guest, "a", 9.0)
        places.rest(guest, 1.0)
    places.wake(1)
    assert [places.take(4, "b", 9.0), places.take(5, "b", 9.0)] == [2, 3]
    with pytest.raises(BusyError):
        places.take(6, "b", 9.0)


def test_a_party_that_has_all_its_places_takes_none_of_others() -> None:
    places: Places[int] = Places(10, 2)
    places.take(0, "other", 9.0)
    places.rest(0, 1.0)
    places.take(1, "a", 9.0)
    places.take(2, "a", 9.0)
    with pytest.raises(BusyError, match="you have 2 connections here"):
        places.take(3, "a", 9.0)
    places.rest(2, 1.0)
    assert places.take(3, "a", 9.0) == 2
    assert len(places) == 3


def test_some_places_are_for_the_clusters_own_parts() -> None:
    places: Places[int] = Places(4, 2, kept=2)
    places.take(1, "a", 9.0)
    places.take(2, "b", 9.0)
    with pytest.raises(BusyError):
        places.take(3, "c", 9.0)
    for guest in (3, 4):
        assert places.take(guest, "node-1", 9.0, ours=True) is None
    with pytest.raises(BusyError, match="4 connections are open here"):
        places.take(5, "node-2", 9.0, ours=True)


def test_one_of_the_clusters_own_parts_takes_no_more_than_its_share() -> None:
    places: Places[int] = Places(8, 2, kept=4)
    for guest in (1, 2):
        places.take(guest, "node-1", 9.0, ours=True)
    with pytest.raises(BusyError, match="you have 2 connections here"):
        places.take(3, "node-1", 9.0, ours=True)
    assert places.take(4, "node-2", 9.0, ours=True) is None


def test_whoever_has_no_place_neither_rests_nor_leaves() -> None:
    places: Places[int] = Places(1, 1)
    places.rest(7, 1.0)
    places.leave(7)
    places.take(1, "a", 9.0)
    with pytest.raises(BusyError):
        places.take(2, "b", 9.0)


def test_who_has_rested_for_a_moment_only_is_in_the_middle_of_something() -> None:
    places: Places[int] = Places(2, 2)
    places.take(1, "a", 0.0)
    places.take(2, "b", 0.0)
    places.rest(1, 10.0)
    places.rest(2, 10.5)
    with pytest.raises(BusyError):
        places.take(3, "c", 10.0 + REST_S - 0.1)
    places.wake(1)
    with pytest.raises(BusyError):
        places.take(3, "c", 10.0 + REST_S)
    places.rest(1, 11.0)
    assert [places.take(3, "c", 10.5 + REST_S), places.take(4, "c", 11.0 + REST_S)] == [2, 1]
