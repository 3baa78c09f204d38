"""One direction of an emulated link, as arithmetic on a clock that the caller reads: when does each packet come out?

A packet waits until those before it are sent, takes its own length at the link's rate, and arrives one delay later; one
that finds the queue full is dropped (drop-tail), and one in so many is lost on its way. Lengths count as an Ethernet
would: the IP packet and 14 bytes, as the kernel's `tbf` counts. Refuses to do: holding packets, sleeping, any I/O.
"""

import random
from typing import Final

LINK_HEADER_BYTES: Final = 14


class Lane:
    """The state of one direction. `rate_bit_s` 0 is no limit; the random numbers follow from `seed`."""

    __slots__ = ("_draw", "_free_at_s", "_loss", "_per_byte_s", "_queue_s", "delay_s", "dropped", "lost", "packets")

    def __init__(self, *, rate_bit_s: float, delay_s: float, loss_ratio: float, queue_bytes: int, seed: int) -> None:
        self.delay_s = delay_s
        self.packets = self.dropped = self.lost = 0
        self._per_byte_s = 8 / rate_bit_s if rate_bit_s else 0.0
        self._queue_s = queue_bytes * self._per_byte_s
        self._loss = loss_ratio
        self._draw = random.Random(seed).random  # noqa: S311  (an experiment to be repeated, no secret)
        self._free_at_s = 0.0

    def offer(self, now_s: float, ip_bytes: int) -> float:
        """Return when a packet of `ip_bytes` that comes at `now_s` is out at the other end; -1: never.

        Times never go backwards from call to call as long as `now_s` does not.
        """
        self.packets += 1
        begin_s = self._free_at_s if self._free_at_s > now_s else now_s
        if begin_s - now_s > self._queue_s:
            self.dropped += 1
            return -1.0
        self._free_at_s = begin_s + (ip_bytes + LINK_HEADER_BYTES) * self._per_byte_s
        if self._loss and self._draw() < self._loss:
            self.lost += 1
            return -1.0
        return self._free_at_s + self.delay_s
