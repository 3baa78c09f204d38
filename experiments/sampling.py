"""What a transfer costs while it runs: bytes on the link over time, retransmissions, memory and processor of both ends.

A thread reads counters ten times a second; the kernel's own totals, read before and after, are what is reported.
Refuses to do: starting or judging the transfer.
"""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from experiments import processes
from experiments.accounting import processor_s
from experiments.lane import LINK_HEADER_BYTES
from experiments.links import Link
from experiments.namespaces import Side

EVERY_S: Final = 0.1
PROCESSES_EVERY: Final = 5  # reading all of /proc costs milliseconds
SEGMENT_HEADER_BYTES: Final = LINK_HEADER_BYTES + 20 + 32  # Ethernet, IPv4, TCP with timestamps


@dataclass(frozen=True)
class Counts:
    """Totals of one end: what its device sent and received, and what TCP did."""

    sent_bytes: int
    sent_packets: int
    received_bytes: int
    segments: int
    retransmitted: int


class Counters:
    """Reads the counters of one end, whatever namespace it is in."""

    def __init__(self, end: Side) -> None:
        self._device = end.device
        self._frame_bytes = 0 if end.framed else LINK_HEADER_BYTES
        self._files = [end.open("dev"), end.open("snmp")]

    def read(self) -> Counts:
        """Return the totals now."""
        device, tcp = (os.pread(file, 1 << 16, 0).decode() for file in self._files)
        sent, sent_packets, received, received_packets = parse_device(device, self._device)
        segments, retransmitted = parse_tcp(tcp)
        return Counts(
            sent + self._frame_bytes * sent_packets,
            sent_packets,
            received + self._frame_bytes * received_packets,
            segments,
            retransmitted,
        )

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)


def parse_device(text: str, device: str) -> tuple[int, int, int, int]:
    """Return bytes and packets sent, then received, by `device` according to /proc/net/dev."""
    for line in text.splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            fields = numbers.split()
            return int(fields[8]), int(fields[9]), int(fields[0]), int(fields[1])
    return 0, 0, 0, 0


def parse_tcp(text: str) -> tuple[int, int]:
    """Return segments sent and retransmitted according to /proc/net/snmp."""
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Tcp:"))
    found = dict(zip(names, map(int, values), strict=True))
    return found["OutSegs"], found["RetransSegs"]


def wire_bytes(before: Counts, after: Counts) -> int:
    """Return the bytes that went out as frames; a device counts the headers of a packet that is cut later only once."""
    uncounted = (after.segments - before.segments) - (after.sent_packets - before.sent_packets)
    return after.sent_bytes - before.sent_bytes + max(0, uncounted) * SEGMENT_HEADER_BYTES


class Sampler:
    """Samples one transfer; `roots` are the server's processes, and the client's are added when they start."""

    def __init__(self, link: Link, roots: Sequence[int]) -> None:
        self.series: list[tuple[float, int]] = []  # seconds, bytes that came out at the server's end
        self._link = link
        self._roots = {"server": list(roots), "client": list[int]()}
        self._peaks: dict[str, dict[int, int]] = {"server": {}, "client": {}}
        self._counters = {"client": Counters(link.client), "server": Counters(link.server)}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Take the totals before the transfer, and begin to sample."""
        self._begin_s = time.monotonic()
        self._before = {end: counters.read() for end, counters in self._counters.items()}
        self._server_s = self._server_processor_s()
        self._client_s = processor_s(self._link.client.group) if self._link.client.group else None
        self._link_s = self._link.processor_s()
        self._thread.start()

    def add_client(self, pid: int) -> None:
        """Sample this process and its children as the client's, too."""
        self._roots["client"].append(pid)

    def finish(self) -> dict[str, object]:
        """End, and return the figures."""
        self._stop.set()
        self._thread.join()
        self._sample_processes()
        after = {end: counters.read() for end, counters in self._counters.items()}
        for counters in self._counters.values():
            counters.close()
        server_s = self._server_processor_s() - self._server_s
        client = self._link.client.group
        client_s = processor_s(client) - self._client_s if client and self._client_s is not None else None
        up, down = (wire_bytes(self._before[end], after[end]) for end in ("client", "server"))
        lost = {end: after[end].retransmitted - self._before[end].retransmitted for end in after}
        shared = self._link.client == self._link.server  # one loopback for both: count it once
        return {
            "wire_up_bytes": up,
            "wire_down_bytes": 0 if shared else down,
            "retransmitted": lost["client"] if shared else sum(lost.values()),
            **({} if client_s is None else {"client_processor_s": round(client_s, 3)}),
            "server_processor_s": round(server_s, 3),
            "link_processor_s": round(self._link.processor_s() - self._link_s, 3),
            "client_peak_bytes": sum(self._peaks["client"].values()),
            "server_peak_bytes": sum(self._peaks["server"].values()),
            "server_process_peak_bytes": max(self._peaks["server"].values(), default=0),
            "goodput": self.series,
        }

    def _server_processor_s(self) -> float:
        group = self._link.server.group
        return processor_s(group) if group else processes.processor_s(processes.tree(self._roots["server"]))

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(max(0.0, self._begin_s + number * EVERY_S - time.monotonic())):
            came = self._counters["server"].read().received_bytes - self._before["server"].received_bytes
            self.series.append((round(time.monotonic() - self._begin_s, 3), came))
            if number % PROCESSES_EVERY == 0 or number < PROCESSES_EVERY:
                self._sample_processes()
            number += 1

    def _sample_processes(self) -> None:
        for end, roots in self._roots.items():
            for pid in processes.tree(roots):
                peak = processes.resident_peak_bytes(pid)
                self._peaks[end][pid] = max(peak, self._peaks[end].get(pid, 0))
