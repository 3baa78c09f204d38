"""The places of those who are known: how many connections a party may have, and all parties together.

Nobody who works is ever turned out. Who rests for `REST_S`, such as between two conversations over HTTP, gives way to a
newcomer, the longest first; sooner would part those who are in the middle of one, and cost a handshake each time. A few
places are kept for the cluster's own parts, so that no crowd of senders stops what they wait for.
Pure. Refuses to do: closing anything, clocks, knowing who is known.
"""

from typing import Final, Generic, TypeVar

from transfer.errors import BusyError

G = TypeVar("G")
REST_S: Final = 5.0


class Places(Generic[G]):
    """`places_max` for all, `party_max` for one party, whoever it is, `kept` of all for those who are `ours`."""

    def __init__(self, places_max: int, party_max: int, *, kept: int = 0) -> None:
        self._places_max, self._party_max, self._kept = places_max, party_max, kept
        self._party_of: dict[G, str] = {}
        self._counts: dict[str, int] = {}
        self._resting: dict[G, float] = {}  # since when, the longest first

    def __len__(self) -> int:
        return len(self._party_of)

    def take(self, guest: G, party: str, now_s: float, *, ours: bool = False) -> G | None:
        """Give a place to `guest`, who works; return who gave way to it, and has none any more.

        Raises:
            BusyError: there is none. (No matter how long to wait: `transfer.doors` knows.)
        """
        leaving = None
        if self._counts.get(party, 0) >= self._party_max:
            leaving = self._longest_resting(now_s, party)
            if leaving is None:
                raise BusyError(f"you have {self._party_max} connections here, as many as one party may")
        elif len(self) >= self._places_max - (0 if ours else self._kept):
            leaving = self._longest_resting(now_s, None)
            if leaving is None:
                raise BusyError(f"{len(self)} connections are open here, as many as may be")
        if leaving is not None:
            self.leave(leaving)
        self._party_of[guest] = party
        self._counts[party] = self._counts.get(party, 0) + 1
        return leaving

    def _longest_resting(self, now_s: float, party: str | None) -> G | None:
        for guest, since_s in self._resting.items():
            if now_s - since_s < REST_S:
                return None
            if party is None or self._party_of[guest] == party:
                return guest
        return None

    def rest(self, guest: G, now_s: float) -> None:
        """Note that one has nothing under way."""
        if guest in self._party_of:
            self._resting.pop(guest, None)
            self._resting[guest] = now_s

    def wake(self, guest: G) -> None:
        """Note that one works again."""
        self._resting.pop(guest, None)

    def leave(self, guest: G) -> bool:
        """Take the place back, and tell whether there was one."""
        party = self._party_of.pop(guest, None)
        if party is None:
            return False
        self._resting.pop(guest, None)
        self._counts[party] -= 1
        if not self._counts[party]:
            del self._counts[party]
        return True
