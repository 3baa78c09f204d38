"""A listener's doors: everybody comes in as a stranger, and stays only who becomes known in time and finds a place.

    accept -> `enter` (lobby) -> `admit` (places), or refused with the time to come back -> `leave`

Works on either runtime: to turn somebody out it calls the function that came with the connection. Refuses to do:
accepting, deciding who is known.
"""

import gc
import time
from collections.abc import Callable
from typing import Final

from transfer.comeback import Comeback, with_pause
from transfer.errors import BusyError
from transfer.lobby import Lobby
from transfer.log import get_logger
from transfer.places import Places
from transfer.tally import Tally

log = get_logger()
COLLECT_EVERY: Final = 500  # strangers: each leaves some 45 KiB of TLS in cycles that the collector takes for small


class Guest:
    """One connection. `turn_out` ends it, at once and without waiting."""

    def __init__(self, doors: "Doors", turn_out: Callable[[], object]) -> None:
        self._doors = doors
        self.turn_out = turn_out
        self.is_known = self.is_refused = False

    def admit(self, party: str, *, ours: bool = False) -> None:
        """Give a known one its place; it can no longer be turned out but while it rests.

        Raises:
            BusyError: there is no place for it now; says when to come back. It stays a stranger.
        """
        self._doors.admit(self, party, ours=ours)

    def refusal(self, message: str) -> BusyError:
        """Return the error for this one, who is known and yet turned away for now, with the time to come back."""
        self.is_refused = True
        return self._doors.refusal(message)

    def rest(self) -> None:
        """Nothing is under way: may be turned out for another known one."""
        self._doors.rest(self)

    def wake(self) -> None:
        """Something is under way again."""
        self._doors.places.wake(self)

    def leave(self) -> None:
        """The connection has ended; may be said again."""
        self._doors.leave(self)


class Doors:
    """What the connections of one listener share."""

    def __init__(
        self,
        lobby: Lobby[Guest],
        places: Places[Guest],
        *,
        clock: Callable[[], float] = time.monotonic,
        on_turned_out: Callable[[], object] = lambda: None,
        on_refused: Callable[[], object] = lambda: None,
    ) -> None:
        self.lobby, self.places = lobby, places
        self._comeback = Comeback()
        self._clock, self._on_turned_out, self._on_refused = clock, on_turned_out, on_refused
        self._uncollected = 0
        self._turned_out, self._refused = Tally(), Tally()

    def enter(self, host: str, turn_out: Callable[[], object]) -> Guest:
        """Take in a connection that was just accepted from `host`."""
        guest = Guest(self, turn_out)
        self._turn_out(self.lobby.enter(guest, host))
        return guest

    def admit(self, guest: Guest, party: str, *, ours: bool = False) -> None:
        """See `Guest.admit`."""
        if guest.is_known:
            return
        try:
            self._turn_out(self.places.take(guest, party, self._clock(), ours=ours))
        except BusyError as error:
            raise self.refusal(error.message) from error
        self.lobby.leave(guest)
        guest.is_known = True

    def rest(self, guest: Guest) -> None:
        """See `Guest.rest`."""
        self.places.rest(guest, self._clock())

    def leave(self, guest: Guest) -> None:
        """See `Guest.leave`."""
        self.lobby.leave(guest)
        if self.places.leave(guest) and not guest.is_refused:
            self._comeback.serve(self._clock())
        self._uncollected += not guest.is_known
        if self._uncollected >= COLLECT_EVERY:
            self._uncollected = 0
            gc.collect()

    def refusal(self, message: str) -> BusyError:
        """Return the error for somebody who is turned away for now, with the time to come back."""
        self._on_refused()
        now_s = self._clock()
        if count := self._refused.note(now_s):
            log.warning("connections_refused", count=count, known=len(self.places))
        pause_s = self._comeback.refuse(now_s)
        return BusyError(with_pause(message, pause_s), retry_after_s=pause_s)

    def _turn_out(self, guest: Guest | None) -> None:
        if guest is None:
            return
        guest.turn_out()
        self._on_turned_out()
        if count := self._turned_out.note(self._clock()):
            log.warning("connections_turned_out", count=count, strangers=len(self.lobby))
