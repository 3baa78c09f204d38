"""Holds a transfer's flows to a rate: the cap that counts at this hour, and the rate that yields to other traffic.

All flows share one bucket; each waits its turn before a share of an object goes. Refuses to do: deciding rates
(`transfer.control.timetable`, `background`), reading sockets.
"""

import datetime

import trio

from transfer.control import background, rate
from transfer.control.background import Background
from transfer.control.rate import UNLIMITED
from transfer.control.timetable import Timetable


class Pacer:
    """The rate of one transfer. `yields`: it gives way to other traffic on the link."""

    def __init__(self, timetable: Timetable, *, yields: bool) -> None:
        self._timetable = timetable
        self._background = Background() if yields else None
        self._bucket = rate.bucket(UNLIMITED, 0.0)
        self.is_limited = yields or timetable.rate_bytes_s(now()) != UNLIMITED or bool(timetable.entries)

    def rate_bytes_s(self) -> float:
        """Return the rate that counts now."""
        cap = self._timetable.rate_bytes_s(now())
        return cap if self._background is None else min(cap, self._background.rate_bytes_s)

    async def take(self, size_bytes: int) -> None:
        """Wait until `size_bytes` may go."""
        if not self.is_limited:
            return
        now_s = trio.current_time()
        self._bucket = rate.with_rate(self._bucket, self.rate_bytes_s(), now_s)
        self._bucket, wait_s = rate.take(self._bucket, size_bytes, now_s)
        if wait_s > 0:
            await trio.sleep(wait_s)

    def share_bytes(self) -> int | None:
        """Return how much may go at once, None where that is not limited: what has gone can no longer yield."""
        return rate.burst_bytes(self.rate_bytes_s()) if self.is_limited and self.rate_bytes_s() < UNLIMITED else None

    def observe(self, *, rtt_s: float, goodput_bytes_s: float, now_s: float, span_s: float) -> None:
        """Take in what the last `span_s` seconds were like."""
        if self._background is not None and rtt_s > 0:
            self._background = background.advance(
                self._background, rtt_s=rtt_s, goodput_bytes_s=goodput_bytes_s, now_s=now_s, span_s=span_s
            )


def now() -> datetime.datetime:
    """Return the local time: timetables are of people's hours."""
    return datetime.datetime.now().astimezone()
