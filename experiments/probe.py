"""Measures a link with packets of its own: round trip, loss and rate in both directions.

    python -m experiments.probe serve ADDRESS                              prints its port, ends with its one caller
    python -m experiments.probe measure ADDRESS PORT < plan (JSON)         prints the figures (JSON)

Loss is counted on numbered datagrams that leave the link half idle; a rate is what arrives of more datagrams than the
link can carry, or, above what Python can send that way, of one TCP connection. Rates count whole frames, as shapers do.
Refuses to do: judging (`experiments.calibration`).
"""

import contextlib
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

FRAME_BYTES: Final = 14 + 20 + 8  # Ethernet, IPv4, UDP
SEGMENT_RATIO: Final = 1514 / 1448  # frame to payload of a full TCP segment
QUIET_S: Final = 0.6
TIMEOUT_S: Final = 30.0  # for one measurement; a queue of 64 KiB takes 8 s at 64 kb/s
POLL_S: Final = 0.1
ECHO, COUNT = b"E", b"C"


class Meter:
    """Counts the datagrams that arrive at a socket, and answers echoes."""

    def __init__(self, udp: socket.socket) -> None:
        self.udp = udp
        self.ended = False
        self.peer: tuple[str, int] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.packets = self.size = 0
        self.first_s = self.last_s = self.heard_s = time.monotonic()

    def serve(self) -> None:
        """Count until `ended` is set."""
        self.udp.settimeout(POLL_S)
        while not self.ended:
            with contextlib.suppress(TimeoutError):  # time to look whether it is over
                data, peer = self.udp.recvfrom(2048)
                if data[:1] == ECHO:
                    self.peer = peer
                    self.udp.sendto(b"A" + data[1:], peer)
                else:
                    self.count(len(data))

    def count(self, size: int) -> None:
        """Count a datagram of `size` bytes; the first one only starts the clock."""
        self.last_s = self.heard_s = time.monotonic()
        if self.packets:
            self.size += size + FRAME_BYTES
        else:
            self.first_s = self.last_s
        self.packets += 1

    def report(self) -> dict[str, float]:
        """Wait until nothing more comes, and return packets and rate."""
        while time.monotonic() - self.heard_s < QUIET_S:
            time.sleep(0.02)
        seconds = self.last_s - self.first_s
        return {"packets": self.packets, "rate_bit_s": self.size * 8 / seconds if seconds else 0.0}


@contextlib.contextmanager
def counting(udp: socket.socket) -> Iterator[Meter]:
    """Give a meter that counts at `udp` in a thread of its own, to the end of the block."""
    meter = Meter(udp)
    thread = threading.Thread(target=meter.serve, daemon=True)
    thread.start()
    try:
        yield meter
    finally:
        meter.ended = True
        thread.join()


def send_datagrams(udp: socket.socket, peer: tuple[str, int], *, packets: int, size: int, rate_bit_s: float) -> None:
    """Send numbered datagrams at a steady rate, counted in whole frames."""
    gap_s = (size + FRAME_BYTES) * 8 / rate_bit_s
    begin_s = time.monotonic()
    for number in range(packets):
        wait_s = begin_s + number * gap_s - time.monotonic()
        if wait_s > 5e-4:
            time.sleep(wait_s)
        udp.sendto(COUNT + number.to_bytes(4) + bytes(size - 5), peer)


def serve(address: str) -> None:
    """Answer one caller on its control connection."""
    with socket.create_server((address, 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(listener.getsockname())
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        print(listener.getsockname()[1], flush=True)
        listener.settimeout(TIMEOUT_S)
        control, _ = listener.accept()
        with control, control.makefile("rw") as lines, counting(udp) as meter:
            for line in lines:
                answer = _answer(json.loads(line), meter, listener)
                lines.write(json.dumps(answer) + "\n")
                lines.flush()


def _answer(order: dict[str, Any], meter: Meter, listener: socket.socket) -> dict[str, float]:
    match order.pop("do"):
        case "reset":
            meter.reset()
        case "report":
            return meter.report()
        case "send" if meter.peer:
            send_datagrams(meter.udp, meter.peer, **order)
        case "stream":
            connection, _ = listener.accept()
            with connection:
                if order["down"]:
                    _pour(connection, order["seconds"])
                else:
                    return {"rate_bit_s": _drain(connection)}
    return {}


def _pour(connection: socket.socket, seconds: float) -> None:
    block, end_s = bytes(1 << 18), time.monotonic() + seconds
    while time.monotonic() < end_s:
        connection.sendall(block)


def _drain(connection: socket.socket) -> float:
    """Return the rate, in whole frames, at which a stream comes; its first third, the slow start, does not count."""
    marks, size, buffer = [], 0, bytearray(1 << 18)
    while count := connection.recv_into(buffer):
        size += count
        marks.append((time.monotonic(), size))
    begin = marks[len(marks) // 3]
    return (marks[-1][1] - begin[1]) * 8 * SEGMENT_RATIO / (marks[-1][0] - begin[0])


class Caller:
    """The other end: it does one measurement after the other."""

    def __init__(self, address: str, port: int) -> None:
        self.peer = (address, port)
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.lines = socket.create_connection(self.peer, TIMEOUT_S).makefile("rw")

    def order(self, **order: Any) -> dict[str, float]:
        """Have the server do something, and return its answer."""
        self.lines.write(json.dumps(order) + "\n")
        self.lines.flush()
        answer: dict[str, float] = json.loads(self.lines.readline())
        return answer

    def round_trip_ms(self, times: int, wait_s: float) -> float:
        """Return the median of some echoes, those that took longer than `wait_s` left out."""
        self.udp.settimeout(wait_s)
        found = []
        for number in range(times):
            begin_s = time.monotonic()
            self.udp.sendto(ECHO + number.to_bytes(4), self.peer)
            with contextlib.suppress(TimeoutError):  # lost: one figure less
                while self.udp.recv(64)[1:5] != number.to_bytes(4):
                    continue
                found.append((time.monotonic() - begin_s) * 1e3)
        return statistics.median(found) if found else float("inf")

    def up(self, how: dict[str, float]) -> dict[str, float]:
        """Send datagrams up, and return what arrived."""
        self.order(do="reset")
        send_datagrams(self.udp, self.peer, **how)  # type: ignore[arg-type]  # a plan's numbers
        return self.order(do="report")

    def down(self, how: dict[str, float]) -> dict[str, float]:
        """Have datagrams sent down, and return what arrived."""
        with counting(self.udp) as meter:
            self.order(do="send", **how)
            meter.heard_s = time.monotonic()
            return meter.report()

    def stream(self, seconds: float, *, down: bool) -> dict[str, float]:
        """Return the rate of one TCP connection."""
        self.lines.write(json.dumps({"do": "stream", "seconds": seconds, "down": down}) + "\n")
        self.lines.flush()
        with socket.create_connection(self.peer, TIMEOUT_S) as connection:
            if down:
                rate = _drain(connection)
            else:
                _pour(connection, seconds)
                connection.shutdown(socket.SHUT_WR)
        answer: dict[str, float] = json.loads(self.lines.readline())
        return {"rate_bit_s": rate} if down else answer


def measure(address: str, port: int, plan: dict[str, Any]) -> dict[str, Any]:
    """Measure what `plan` asks for: `echo`, `loss` and `rate` (per direction), or `stream_s`."""
    caller = Caller(address, port)
    found: dict[str, Any] = {"round_trip_ms": caller.round_trip_ms(**plan["echo"])}
    for way, one_way in (("up", caller.up), ("down", caller.down)):
        if how := plan.get("loss", {}).get(way):
            found[f"{way}_loss_ratio"] = 1 - one_way(how)["packets"] / how["packets"]
        if how := plan.get("rate", {}).get(way):
            found[f"{way}_bit_s"] = one_way(how)["rate_bit_s"]
        elif plan.get("stream_s"):
            found[f"{way}_bit_s"] = caller.stream(plan["stream_s"], down=way == "down")["rate_bit_s"]
    return found


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        try:
            print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), json.load(sys.stdin))))
        except OSError as error:
            sys.exit(f"{error} ({TIMEOUT_S:g} s at most for one answer)" if str(error) == "timed out" else str(error))
