"""Who is known keeps its place while it works; who rests gives way; parties and the cluster's own have their shares."""

import pytest

from transfer.errors import BusyError
from transfer.places import Places


def test_nobody_who_works_gives_way() -> None:
    places: Places[int] = Places(2, 2)
    assert [places.take(1, "a"), places.take(2, "b")] == [None, None]
    with pytest.raises(BusyError, match="2 connections are open here"):
        places.take(3, "c")
    places.leave(1)
    assert places.take(3, "c") is None
    assert len(places) == 2


def test_the_one_that_rested_longest_gives_way() -> None:
    places: Places[int] = Places(3, 3)
    for guest in (1, 2, 3):
        places.take(guest, "a")
        places.rest(guest)
    places.wake(1)
    assert [places.take(4, "b"), places.take(5, "b")] == [2, 3]
    with pytest.raises(BusyError):
        places.take(6, "b")


def test_a_party_that_has_all_its_places_takes_none_of_others() -> None:
    places: Places[int] = Places(10, 2)
    places.take(0, "other")
    places.rest(0)
    places.take(1, "a")
    places.take(2, "a")
    with pytest.raises(BusyError, match="you have 2 connections here"):
        places.take(3, "a")
    places.rest(2)
    assert places.take(3, "a") == 2
    assert len(places) == 3


def test_some_places_are_for_the_clusters_own_parts() -> None:
    places: Places[int] = Places(4, 2, kept=2)
    places.take(1, "a")
    places.take(2, "b")
    with pytest.raises(BusyError):
        places.take(3, "c")
    for guest in (3, 4):
        assert places.take(guest, "node-1", ours=True) is None
    with pytest.raises(BusyError):
        places.take(5, "node-1", ours=True)


def test_whoever_has_no_place_neither_rests_nor_leaves() -> None:
    places: Places[int] = Places(1, 1)
    places.rest(7)
    places.leave(7)
    places.take(1, "a")
    with pytest.raises(BusyError):
        places.take(2, "b")
