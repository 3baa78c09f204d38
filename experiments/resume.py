"""`fascicle experiment resume`: what a broken transfer costs, in bytes that go over the wire a second time.

A link is cut in the middle of a transfer (for some seconds every packet vanishes, and the kernels of both ends forget
their connections), or the sender is killed and started again; for one large object, and for many images, with one node
and with several. Promised: at most one window again, though images are on several flows,
each of which has one. The bytes are those of the client's device, less headers and what TCP retransmitted;
frames, TLS and the gateway's messages count as sent again. Refuses to do: mending anything.
"""

import argparse
import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Final

from experiments import arguments
from experiments.links import MTU, Link, open_link
from experiments.namespaces import Side, call, program
from experiments.peers.base import PeerError
from experiments.profiles import PROFILES
from experiments.sampling import SEGMENT_HEADER_BYTES, Counters, Counts
from experiments.scenario import Place, kill, open_place

LINK: Final = "tanet"
CUT_S: Final = 3.0
LOOK_S: Final = 0.02
BEGIN_S: Final = 60.0
PAYLOAD_BYTES: Final = MTU - 52  # of a segment, with IPv4, TCP and timestamps
MIB: Final = 1 << 20
OBJECT_HEADER_BYTES: Final = 2048  # of a file on a node (docs/storage.md)
BROKEN: Final = ("cut", "killed")
SENT: Final = ("object", "images")


@dataclass(frozen=True)
class Finding:
    """What one broken transfer cost; all are payload bytes, what TCP retransmitted apart."""

    sent: str
    broken: str
    nodes: int
    size_bytes: int
    wire_bytes: int
    retransmitted_bytes: int
    kept_bytes: int  # by the nodes, when the transfer went on: whole objects, and parts of resumable ones
    after_bytes: int  # on the wire from then on
    flows: int  # that broke
    window_bytes: int  # the largest of theirs: as much may go again

    @property
    def resent_bytes(self) -> int:
        """What went a second time."""
        return self.wire_bytes - self.size_bytes

    @property
    def kept_resent_bytes(self) -> int:
        """What went a second time though a node had it: its receipt was lost, or another node took it."""
        return max(0, self.after_bytes - (self.size_bytes - self.kept_bytes))

    @property
    def met(self) -> bool:
        """Whether that is what was promised."""
        return self.resent_bytes <= self.window_bytes

    def text(self) -> str:
        """Return it in words."""
        head = f"{self.sent}, {self.nodes} node{'s' * (self.nodes > 1)}, {self.broken}"
        return (
            f"{head}: {_mib(self.resent_bytes)} of {_mib(self.size_bytes)} sent again "
            f"({_mib(self.kept_resent_bytes)} of it kept by a node), allowed {_mib(self.window_bytes)}, "
            f"one window ({self.flows} flows); "
            f"TCP retransmitted {_mib(self.retransmitted_bytes)}: {'met' if self.met else 'not met'}"
        )


def run(given: argparse.Namespace) -> int:
    """Break transfers, print what each cost, and return the exit code: 1 when it was more than promised.

    Raises:
        FascicleError: a link that cannot be had, or a transfer that did not come to its end.
    """
    images = arguments.whole(given.images, "--images", 1, arguments.OBJECTS_MAX)
    object_mb = arguments.whole(given.object_mb, "--object-mb", 9, 4000)
    findings = []
    with open_link(PROFILES[LINK]) as link:
        for sent, nodes, broken in product(SENT, arguments.node_counts(given.nodes), BROKEN):
            with tempfile.TemporaryDirectory(prefix="fascicle-experiment-") as name:
                files = write(Path(name) / "files", sent, images=images, object_mb=object_mb)
                with open_place(link, Path(name), nodes) as place:
                    findings.append(break_transfer(place, files, sent, broken))
            print(findings[-1].text(), flush=True)
    for finding in findings:
        print(json.dumps(asdict(finding) | {"resent_bytes": finding.resent_bytes, "met": finding.met}))
    return 0 if all(finding.met for finding in findings) else 1


def window_bytes(flows: int) -> int:
    """Return the credit that a node gives each of its `flows` flows (`nodes.credit`, which a test compares)."""
    return max(1536 << 10, min(16 * MIB, 32 * MIB // max(1, flows)))


def break_transfer(place: Place, files: Sequence[Path], sent: str, broken: str) -> Finding:
    """Send `files`, break that halfway, let it come to its end, and return what it cost.

    Raises:
        PeerError: it ended before it could be broken, or not at all, or other bytes arrived.
    """
    words = ("send", files[0].parent, "--encoding", "raw")
    size_bytes = sum(file.stat().st_size for file in files)
    with _open_counters(place.link.client) as counters:
        begin = counters.read()
        with place.open_command(*words) as sender:
            _wait_sent(counters, begin, size_bytes // 2, sender)
            flows = _count_flows(place)
            if broken == "cut":
                with _cut(place.link):
                    broke = counters.read()
                    time.sleep(CUT_S / 2)
                    _forget_connections(place.link)
                    time.sleep(CUT_S / 2)
                    kept_bytes = _kept_bytes(place)
                resumed = counters.read()
                place.summary(sender)
            else:
                kill(sender)
                time.sleep(CUT_S)  # what the kernel had taken still goes
                kept_bytes = _kept_bytes(place)
                broke = resumed = counters.read()
                place.run_command(*words)
        end = counters.read()
    _compare(place, files)
    spans = ((begin, broke), (resumed, end))
    retransmitted = [(after.retransmitted - before.retransmitted) * PAYLOAD_BYTES for before, after in spans]
    wire = [_payload_bytes(*span) - again for span, again in zip(spans, retransmitted, strict=True)]
    windows = [window_bytes(count) for count in flows for _ in range(count)]  # of each flow
    return Finding(
        sent=sent,
        broken=broken,
        nodes=len(flows),
        size_bytes=size_bytes,
        wire_bytes=sum(wire),
        retransmitted_bytes=sum(retransmitted),
        kept_bytes=kept_bytes,
        after_bytes=wire[1],
        flows=len(windows),
        window_bytes=max(windows),
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.2f} MiB"


def write(folder: Path, sent: str, *, images: int, object_mb: int) -> list[Path]:
    """Write one large object, or so many images, into the new folder `folder`; return their paths."""
    from experiments.generate import write_multiframe, write_series  # noqa: PLC0415  # numpy, for this only

    if sent == "images":
        return write_series(folder, images, seed=1)
    folder.mkdir()
    write_multiframe(folder / "object.dcm", object_mb * 1_000_000, seed=1)
    return [folder / "object.dcm"]


@contextmanager
def _open_counters(end: Side) -> Iterator[Counters]:
    counters = Counters(end)
    try:
        yield counters
    finally:
        counters.close()


def _payload_bytes(before: Counts, after: Counts) -> int:
    """Return what TCP carried: each packet of a device has its headers once, however large it is."""
    packets = after.sent_packets - before.sent_packets
    return after.sent_bytes - before.sent_bytes - packets * SEGMENT_HEADER_BYTES


def _wait_sent(counters: Counters, begin: Counts, size_bytes: int, sender: "subprocess.Popen[str]") -> None:
    deadline_s = time.monotonic() + BEGIN_S
    while counters.read().sent_bytes - begin.sent_bytes < size_bytes:
        if sender.poll() is not None or time.monotonic() > deadline_s:
            raise PeerError("the transfer was not under way when it was to be broken")
        time.sleep(LOOK_S)


@contextmanager
def _cut(link: Link) -> Iterator[None]:
    """Lose every packet both ways: each end sends to its loopback, where nobody has the other's address."""
    ends = ((link.client, link.server), (link.server, link.client))
    try:
        for end, other in ends:
            _route(end, other, "dev", "lo")
        yield
    finally:
        for end, other in ends:
            _route(end, other, "dev", end.device, "scope", "link", "src", end.address)


def _route(end: Side, other: Side, *words: str) -> None:
    call(program("ip"), "-n", end.namespace, "route", "replace", other.address, *words)


def _forget_connections(link: Link) -> None:
    for end, other in ((link.client, link.server), (link.server, link.client)):
        call(*end.command(program("ss"), "-K", "-tnH", "state", "connected", "dst", other.address))


def _count_flows(place: Place) -> list[int]:
    """Return how many connections there are to each node."""
    ss = place.link.client.command(program("ss"), "-tnH", "state", "established", "dst")
    return [len(call(*ss, node["address"]).splitlines()) for node in place.cluster.ready["nodes"]]


def _kept_bytes(place: Place) -> int:
    """Return what the nodes would have after a loss of power: whole objects, and what came of resumable ones."""
    found = [*place.cluster.data.glob("**/objects/??/??/*"), *place.cluster.data.glob("**/incoming/*.partial")]
    return sum(max(0, path.stat().st_size - OBJECT_HEADER_BYTES) for path in found)


def _compare(place: Place, files: Sequence[Path]) -> None:
    out = place.folder / "out"
    place.run_command("get", "--all", out)
    digests = [
        sorted(hashlib.sha256(path.read_bytes()).digest() for path in paths)
        for paths in (files, [path for path in out.rglob("*") if path.is_file()])
    ]
    if digests[0] != digests[1]:
        raise PeerError("what is stored is not what was sent")
