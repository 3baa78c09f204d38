"""A link in a process: two TUN devices, and for each direction a `Lane` that says when a packet goes on.

    python -m experiments.userspace DEVICE_A DEVICE_B  < settings as one JSON line on standard input

It makes both devices (the caller moves them into their namespaces; the descriptors stay good), says `ready` on standard
output, carries packets until standard input ends, and then prints what passed as one JSON line. One thread, `select`
with microsecond time-outs: each wake-up takes all packets that wait and writes all that are due. Refuses to do:
anything to the packets. Source of the interface: Linux Documentation/networking/tuntap.rst.
"""

import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys
import time
from collections import deque
from typing import Any, Final

from experiments.lane import Lane

TUNSETIFF: Final = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
PACKET_BYTES_MAX: Final = 1 << 16
BATCH: Final = 64  # packets that one direction takes before the other has its turn
IDLE_S: Final = 1.0
# While packets come in twos and more, the next ones may gather this long: 100 Mb/s and its acknowledgements then take a
# quarter of a processor (AMD EPYC), without it a third. A lone packet never waits for others.
GATHER_S: Final = 0.0002
GONE: Final = frozenset({errno.EIO, errno.ENETDOWN, errno.EBADFD, errno.EINVAL})  # the device is down or not up yet


def open_tun(name: str) -> int:
    """Make the TUN device `name` (layer 3, no packet information) and return its descriptor.

    Raises:
        OSError: no permission, no TUN, or the name is taken.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


class Direction:
    """From one device to the other: the lane, and the packets that are under way."""

    def __init__(self, source: int, target: int, lane: Lane) -> None:
        self.source = source
        self.target = target
        self.lane = lane
        self.under_way: deque[tuple[float, bytes]] = deque()
        self.refused = 0

    def take(self) -> int:
        """Read what waits at the source, at most a batch, and return how many packets it was."""
        offer, append, source = self.lane.offer, self.under_way.append, self.source
        read, clock = os.read, time.monotonic
        count = 0
        try:
            for count in range(BATCH):  # noqa: B007  # read after the loop
                packet = read(source, PACKET_BYTES_MAX)
                due_s = offer(clock(), len(packet))
                if due_s >= 0:
                    append((due_s, packet))
        except OSError as error:
            if error.errno not in GONE | {errno.EAGAIN}:
                raise
        return count

    def give(self, now_s: float) -> None:
        """Write what is due at the target."""
        under_way, write, target = self.under_way, os.write, self.target
        while under_way and under_way[0][0] <= now_s:
            try:
                write(target, under_way.popleft()[1])
            except OSError as error:  # the far side takes no packet now: as a cable would, lose it
                if error.errno not in GONE | {errno.EAGAIN, errno.ENOBUFS}:
                    raise
                self.refused += 1


def carry(directions: tuple[Direction, Direction], control: int) -> None:
    """Carry packets until `control` has something to read (or ends)."""
    sources = [control, *(direction.source for direction in directions)]
    by_source = {direction.source: direction for direction in directions}
    wait, clock = select.select, time.monotonic
    taken = 0
    while True:
        if taken > 1:
            time.sleep(GATHER_S)
        now_s = clock()
        due_s = [direction.under_way[0][0] for direction in directions if direction.under_way]
        readable, _, _ = wait(sources, (), (), max(0.0, min(due_s) - now_s) if due_s else IDLE_S)
        if control in readable:
            return
        taken = sum(by_source[source].take() for source in readable)
        now_s = clock()
        for direction in directions:
            direction.give(now_s)


def statistics(direction: Direction) -> dict[str, int]:
    """Return how many packets came, found the queue full, were lost on purpose, and were not taken."""
    lane = direction.lane
    return {"packets": lane.packets, "dropped": lane.dropped, "lost": lane.lost, "refused": direction.refused}


def main() -> int:
    """Carry packets between the two devices that the command line names."""
    settings: dict[str, dict[str, Any]] = json.loads(sys.stdin.readline())
    a, b = (open_tun(name) for name in sys.argv[1:3])
    up, down = Direction(a, b, Lane(**settings["up"])), Direction(b, a, Lane(**settings["down"]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    print("ready", flush=True)
    begin_s = time.monotonic()
    carry((up, down), sys.stdin.fileno())
    figures: dict[str, Any] = {"up": statistics(up), "down": statistics(down)}
    figures |= {"processor_s": round(time.process_time(), 3), "seconds": round(time.monotonic() - begin_s, 3)}
    print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
