"""What the data path costs: 360 x 801 KiB raw to 5 plain nodes, against ftplib to vsftpd and `sync` (`make bench`).

Runs alternate, each pair on fresh images, with a `sync` before each run so that neither pays for the other's dirty
pages. Ours is `seconds` of `fascicle send --json`: from the first read to the commit's answer, so it hashes, flushes
and receipts. FTP is from connect to quit, then `sync`: before that its data is in memory only.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import ftp
from bench.cluster import Cluster, open_cluster
from bench.generate import write_series

RESULTS = Path(__file__).parent / "results"
LIMIT_RATIO = 0.7


@dataclass(frozen=True)
class Pair:
    """One run of each on the same fresh images, in seconds."""

    ours_s: float
    process_s: float  # the whole of `fascicle send`, with the interpreter's start
    ftp_s: float


def measure(cluster: Cluster, ftp_port: int, ftp_folder: Path, source: Path, *, ftp_first: bool) -> Pair:
    """Send `source` both ways, in the order asked."""
    files = sorted(source.iterdir())
    ftp_s = _ftp(ftp_port, ftp_folder, files) if ftp_first else None
    ours_s, process_s = _ours(cluster, source, len(files))
    return Pair(ours_s, process_s, ftp_s or _ftp(ftp_port, ftp_folder, files))


def _ftp(port: int, folder: Path, files: Sequence[Path]) -> float:
    os.sync()
    seconds = ftp.upload_s(port, files)
    ftp.clear(folder)
    return seconds


def _ours(cluster: Cluster, source: Path, count: int) -> tuple[float, float]:
    os.sync()
    begin = time.perf_counter()
    result = cluster.run("send", source, "--encoding", "raw")
    process_s = time.perf_counter() - begin
    if result.code != 0 or result.summary["objects"] != count or result.summary["skipped"]:
        raise RuntimeError(f"the transfer is not the one to measure: {result}")
    return float(result.summary["seconds"]), process_s


def main() -> int:
    """Measure, print, and keep the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("runs", 5), ("images", 360), ("nodes", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    if ftp.VSFTPD is None:
        print("vsftpd is not installed", file=sys.stderr)
        return 1
    pairs = _pairs(given.runs, given.images, given.nodes)
    return _report(pairs, vars(given))


def _pairs(runs: int, images: int, nodes: int) -> list[Pair]:
    pairs: list[Pair] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fascicle-bench-")))
        folder.chmod(0o755)  # vsftpd's unprivileged process must reach its root
        port = stack.enter_context(ftp.open_server(folder / "ftp"))
        cluster = stack.enter_context(open_cluster(folder / "cluster", "--plain", nodes=nodes))
        for run in range(runs):
            source = folder / f"source-{run}"
            write_series(source, images, seed=int.from_bytes(os.urandom(6)))
            pairs.append(measure(cluster, port, folder / "ftp", source, ftp_first=run % 2 == 0))
            print(f"run {run + 1}: ours {pairs[-1].ours_s:.3f} s, ftp + sync {pairs[-1].ftp_s:.3f} s", flush=True)
    return pairs


def _report(pairs: list[Pair], given: dict[str, int]) -> int:
    ours, process, by_ftp = (
        statistics.median(getattr(pair, name) for pair in pairs) for name in ("ours_s", "process_s", "ftp_s")
    )
    ratio = ours / by_ftp
    print(
        f"median of {len(pairs)}: ours {ours:.3f} s (whole process {process:.3f} s), ftp + sync {by_ftp:.3f} s, "
        f"ratio {ratio:.2f} (at most {LIMIT_RATIO} wished)"
    )
    RESULTS.mkdir(exist_ok=True)
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    figures = {"at": at, **given, "runs_s": [asdict(pair) for pair in pairs], "ratio": ratio}
    (RESULTS / f"data_path-{at}.json").write_text(json.dumps(figures, indent=1))
    return 0 if ratio <= LIMIT_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
