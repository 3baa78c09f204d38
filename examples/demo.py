"""The whole way in one go: start a gateway and 5 nodes, send a CT series, read it back, compare, print (`make demo`).

Everything happens in a temporary folder and through the commands that people use. Exit code 0: every object came
back bit for bit; 1: it did not.

    python -m examples.demo [--data FOLDER] [--images 360] [--nodes 5]
"""

import argparse
import hashlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.cluster import Cluster, Result, open_cluster
from bench.generate import write_series


def digests(folder: Path) -> Counter[str]:
    """Return how often each content occurs below `folder`."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                found[hashlib.file_digest(file, "sha256").hexdigest()] += 1
    return found


def timed(cluster: Cluster, *words: object) -> tuple[Result, float]:
    """Run a command; return what it left and the seconds of the whole process."""
    begin = time.perf_counter()
    return cluster.run(*words), time.perf_counter() - begin


def shares(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """Return node -> objects and bytes on its disk."""
    found = {}
    for folder in sorted((cluster.data / "nodes").iterdir(), key=lambda path: (len(path.name), path.name)):
        sizes = [path.stat().st_size for path in (folder / "objects").glob("??/??/*")]
        found[folder.name] = (len(sizes), sum(sizes))
    return found


def add_row(table: Table, what: str, objects: int, size_bytes: int, seconds: float) -> None:
    """Add one line of the table of rates."""
    megabytes = size_bytes / 1e6
    table.add_row(what, f"{objects}", f"{megabytes:.1f}", f"{seconds:.2f}", f"{megabytes / seconds:.0f}")


def show(cluster: Cluster, sent: Result, received: Result, get_s: float) -> None:
    """Print the rates, and each node's share."""
    rates = Table("", "objects", "MB", "seconds", "MB/s", title="Sent, durable and read back")
    add_row(rates, "send", sent.summary["objects"], sent.summary["bytes"], sent.summary["seconds"])
    add_row(rates, "get", received.summary["objects"], received.summary["bytes"], get_s)
    held = shares(cluster)
    total = sum(count for count, _ in held.values()) or 1
    nodes = Table("node", "objects", "MB on disk", "share", title="Share per node")
    for node, (count, size_bytes) in held.items():
        nodes.add_row(node, f"{count}", f"{size_bytes / 1e6:.1f}", f"{100 * count / total:.0f} %")
    for table in (rates, nodes):
        for column in table.columns[1:]:
            column.justify = "right"
        Console(width=100).print(table)


def demonstrate(cluster: Cluster, source: Path, out: Path) -> int:
    """Send `source`, read everything back into `out`, compare; return the exit code."""
    sent, _ = timed(cluster, "send", source)
    if sent.code != 0:
        print(f"send failed with exit code {sent.code}: {sent.summary or sent.errors}", file=sys.stderr)
        return 1
    received, get_s = timed(cluster, "get", "--all", out)
    if received.code != 0:
        print(f"get failed with exit code {received.code}: {received.errors}", file=sys.stderr)
        return 1
    show(cluster, sent, received, get_s)
    before, after = digests(source), digests(out)
    strange = set(after) - set(before)
    if strange or len(after) != sent.summary["receipt"]["objects"]:
        print(f"NOT identical: {len(strange)} objects differ, {len(after)} of {len(before)} are there", file=sys.stderr)
        return 1
    print(f"identical: {len(after)} objects came back bit for bit (SHA-256)")
    return 0


def main() -> int:
    """Run the demonstration in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of DICOM files of your own")
    parser.add_argument("--images", type=int, default=360, help="how many images to generate without --data")
    parser.add_argument("--nodes", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fascicle-demo-") as folder:
        source = given.data
        if source is None:
            source = Path(folder) / "ct"
            print(f"generating {given.images} CT images of 640 x 640 ...", flush=True)
            write_series(source, given.images, seed=1)
        print(f"starting a gateway and {given.nodes} nodes ...", flush=True)
        with open_cluster(Path(folder) / "cluster", nodes=given.nodes) as cluster:
            return demonstrate(cluster, source, Path(folder) / "out")


if __name__ == "__main__":
    sys.exit(main())
