"""What the tests of a whole cluster judge by: contents on both sides, listings, ports, deadlines."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from bench.cluster import Cluster, Result
from transfer import credentials, tls

T = TypeVar("T")


def contents(folder: Path) -> Counter[str]:
    """Return how often each content (SHA-256) occurs below `folder`."""
    return Counter(digest(path) for path in folder.rglob("*") if path.is_file())


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def eventually(probe: Callable[[], T], *, within_s: float = 30.0, every_s: float = 0.05) -> T:
    """Return what `probe` returns once that is true; fail when it is not in time."""
    deadline = time.monotonic() + within_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {probe}"
        time.sleep(every_s)
    return found


def objects_on_disk(cluster: Cluster) -> list[Path]:
    """Return every stored object's file on every node."""
    return list(cluster.data.glob("nodes/*/objects/??/??/*"))


def listing(cluster: Cluster) -> list[dict[str, object]]:
    """Return every entry of the gateway's catalogue, page by page, as an outside program would."""
    own = credentials.load(cluster.credentials)
    found: list[dict[str, object]] = []
    with httpx.Client(base_url=own.gateway, verify=tls.client_context(own), timeout=30) as client:
        after = ""
        while True:
            answer = client.get("/api/v1/objects", params={"limit": 500, **({"after": after} if after else {})})
            answer.raise_for_status()
            page = answer.json()
            found += page["objects"]
            if page["next"] is None:
                return found
            after = page["next"]


def assert_holds(cluster: Cluster, sources: list[Path], out: Path) -> None:
    """Everything in `sources` is in the cluster bit for bit, once, and nothing else is."""
    got = cluster.run("get", "--all", out)
    assert got.code == 0, got
    expected: set[str] = set().union(*(contents(source) for source in sources))
    assert contents(out) == Counter(dict.fromkeys(expected, 1))
    ids = [entry["object_id"] for entry in listing(cluster)]
    assert len(ids) == len(set(ids)) == len(expected)


def assert_failed(result: Result, *paths: Path) -> None:
    """A `send` that named exactly `paths` as failed, each with a reason, and said so by its exit code."""
    assert result.code == 1, result
    assert {entry["file"] for entry in result.summary["failures"]} == {str(path) for path in paths}
    assert result.summary["failed"] == len(paths)
    assert all(entry["code"] and entry["reason"] for entry in result.summary["failures"])


def assert_sent(result: Result, *, objects: int, skipped: int = 0) -> None:
    """A `send` that did all it was asked: `objects` went, `skipped` were stored already."""
    assert result.code == 0, result
    assert (result.summary["objects"], result.summary["skipped"]) == (objects, skipped)
    assert result.summary["receipt"]["objects"] == objects + skipped
