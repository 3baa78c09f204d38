"""Holds a transfer's flows to a rate: the cap that counts at this hour, and the rate that yields to other traffic.

All flows share one bucket; each waits its turn before a share of an object goes, in the order in which they came, and
for as long as the rate makes it that counts while it waits. Refuses to do: deciding rates
(`transfer.control.timetable`, `background`), reading sockets.
"""

import datetime
from typing import Final

import trio

from transfer.control import background, rate
from transfer.control.background import Background
from transfer.control.rate import UNLIMITED
from transfer.control.timetable import Timetable

LOOK_S: Final = 0.1  # whether the rate is still the same


class Pacer:
    """The rate of one transfer. `yields`: it gives way to other traffic on the link, and is to `observe` that."""

    def __init__(self, timetable: Timetable, *, yields: bool) -> None:
        self._timetable = timetable
        self.yields = yields
        self._background = Background() if yields else None
        self._burst_s = background.BURST_S if yields else rate.BURST_S
        self._bucket = rate.bucket(UNLIMITED, 0.0, self._burst_s)
        self._order = trio.Lock()  # who came first goes first
        self.is_limited = yields or timetable.rate_bytes_s(now()) != UNLIMITED or bool(timetable.entries)

    def rate_bytes_s(self) -> float:
        """Return the rate that counts now."""
        cap = self._timetable.rate_bytes_s(now())
        return cap if self._background is None else min(cap, self._background.rate_bytes_s)

    async def take(self, size_bytes: int) -> None:
        """Wait until `size_bytes` may go."""
        if not self.is_limited:
            return
        async with self._order:
            self._bucket = rate.take(self._now(), size_bytes, trio.current_time())
            while (wait_s := rate.wait_s(self._bucket)) > 0:
                await trio.sleep(min(wait_s, LOOK_S))
                self._bucket = self._now()

    def _now(self) -> rate.Bucket:
        return rate.with_rate(self._bucket, self.rate_bytes_s(), trio.current_time())

    def share_bytes(self) -> int | None:
        """Return how much may go at once, None where that is not limited: what has gone can no longer yield."""
        rate_bytes_s = self.rate_bytes_s()
        return rate.burst_bytes(rate_bytes_s, self._burst_s) if rate_bytes_s < UNLIMITED else None

    def observe(self, *, rtt_s: float, goodput_bytes_s: float, now_s: float, span_s: float) -> None:
        """Take in what the last `span_s` seconds were like."""
        if self._background is not None:
            self._background = background.advance(
                self._background, rtt_s=rtt_s, goodput_bytes_s=goodput_bytes_s, now_s=now_s, span_s=span_s
            )


def now() -> datetime.datetime:
    """Return the local time: timetables are of people's hours."""
    return datetime.datetime.now().astimezone()
