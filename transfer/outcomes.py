"""What a sender is asked for, how far it is, and what became of every file. Pure values; refuses to do: the sending."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from transfer.api import CommitReceipt
from transfer.control.bounds import Evidence
from transfer.control.priority import Priority
from transfer.control.timetable import Timetable
from transfer.errors import FascicleError, NotDicomError
from transfer.inspection import SourceFile

WAITS: Final = ("source", "receiver", "link", "rate")  # what flows wait for


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How to send; None lets the cluster or the sender choose. `patience_s`: how long nothing at all may move."""

    encoding: str = "auto"
    flows: int | None = None
    nodes: int | None = None
    replicas: int | None = None
    congestion: str | None = "auto"  # None: the system's default
    priority: Priority = Priority.ROUTINE
    timetable: Timetable = field(default_factory=Timetable)  # of the bandwidth that may be used
    any_file: bool = False
    workers: int | None = None  # encoders at once; None: one for each processor
    memory: Path | None = None  # where it is remembered what worked on which path
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file. `object_id` is "" when `error` says why it did not go."""

    source: SourceFile
    object_id: str = ""
    skipped: bool = False  # its object was stored before, or is another file's too
    error: FascicleError | None = None

    @property
    def ignored(self) -> bool:
        """Whether this is a file that a folder may hold beside its images."""
        return isinstance(self.error, NotDicomError) and not self.source.named


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a transfer was after `t_s`: durable `bytes`, bytes handed to flows, flows, objects by encoding."""

    t_s: float
    bytes: int
    wire_bytes: int
    flows: int
    encodings: dict[str, int]


@dataclass(slots=True)
class Kernel:
    """What TCP_INFO told in all: seconds summed over flows, and samples of them all."""

    busy_s: float = 0.0
    rwnd_limited_s: float = 0.0
    samples: int = 0
    with_backlog: int = 0


@dataclass(slots=True)
class Counters:
    """How far a transfer is; read by whoever shows progress, written by the sender only."""

    objects: int = 0
    bytes: int = 0
    skipped: int = 0
    failed: int = 0
    wire_bytes: int = 0
    node_bytes: dict[str, int] = field(default_factory=dict)
    encodings: dict[str, int] = field(default_factory=dict)
    flows: int = 0
    timeline: list[Moment] = field(default_factory=list)
    kernel: Kernel = field(default_factory=Kernel)
    waits_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WAITS, 0.0))

    def wait(self, what: str, since_s: float) -> None:
        """Add the time since `since_s` to what flows waited for."""
        self.waits_s[what] += trio.current_time() - since_s

    def wait_turn(self, since_s: float) -> None:
        """Add the time since `since_s` to what waited for the rate: part of a send, and not the link's."""
        took_s = trio.current_time() - since_s
        self.waits_s["rate"] += took_s
        self.waits_s["link"] -= took_s

    def add_cost(self, other: "Counters") -> None:
        """Add what another transfer took: all but the objects and files that it is about."""
        self.wire_bytes += other.wire_bytes
        self.flows = max(self.flows, other.flows)
        for node_id, size_bytes in other.node_bytes.items():
            self.node_bytes[node_id] = self.node_bytes.get(node_id, 0) + size_bytes
        for encoding, count in other.encodings.items():
            self.encodings[encoding] = self.encodings.get(encoding, 0) + count
        for what, seconds in other.waits_s.items():
            self.waits_s[what] += seconds
        for name in Kernel.__slots__:
            setattr(self.kernel, name, getattr(self.kernel, name) + getattr(other.kernel, name))

    def evidence(self, processor_ratio: float) -> Evidence:
        """Return what tells what bound the transfer; `processor_ratio`: processor time per elapsed time."""
        kernel = self.kernel
        if not kernel.samples:
            return Evidence(self.waits_s, processor_ratio)
        backlog_ratio = kernel.with_backlog / kernel.samples
        return Evidence(self.waits_s, processor_ratio, kernel.busy_s, kernel.rwnd_limited_s, backlog_ratio)


@dataclass(frozen=True, slots=True)
class SendResult:
    """A finished transfer: what became of every file, and the gateway's receipt (None: nothing to commit)."""

    outcomes: Sequence[Outcome]
    receipt: CommitReceipt | None
