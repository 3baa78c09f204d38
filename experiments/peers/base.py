"""The interface of what is compared: a server at one end of a link, and client programs that send files to it.

A peer starts its server and says which client commands to run; the harness runs, times and samples them, and the peer
then reads what they printed and counts what arrived. Refuses to do: measuring.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from experiments.links import Link
from experiments.namespaces import PATH
from transfer.errors import FascicleError

START_S, STOP_S = 20.0, 10.0
LOG_END: Final = 600


class PeerError(FascicleError):
    """A peer that does not start, fails, or does not have every file at the end."""

    code = "peer"


@dataclass(frozen=True)
class Options:
    """What ours is asked for; the others have no such choices."""

    encoding: str = "auto"
    congestion: str = "auto"
    plain: bool = False


@dataclass(frozen=True)
class Job:
    """One run: the link, an empty folder to work in, how many nodes, and the files, all in one folder."""

    link: Link
    folder: Path
    nodes: int
    files: Sequence[Path]
    options: Options


@dataclass(frozen=True)
class Output:
    """What a finished client left."""

    code: int
    text: str
    errors: str


@dataclass(frozen=True)
class Outcome:
    """What became of a run: seconds by the client's own clock (None: it has none), and what else it tells."""

    seconds: float | None = None
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that waits: its processes, the clients' commands (run at the same time), and how to read the end.

    `read` raises PeerError when the clients failed; `arrived` counts the objects that the server has.
    """

    roots: Sequence[int]
    clients: Sequence[Sequence[object]]
    arrived: Callable[[], int]
    read: Callable[[Sequence[Output]], Outcome] = lambda _: Outcome()


class Peer(Protocol):
    """One of the things compared."""

    @property
    def name(self) -> str:
        """The name on the command line and in the tables."""

    @property
    def by_nodes(self) -> bool:
        """Whether it has a number of nodes to vary."""

    def missing(self) -> str:
        """Return what is not installed, in words; "" when it can run."""

    def open(self, job: Job) -> AbstractContextManager[Running]:
        """Start the server, and stop it at the end."""


def lacking(*programs: tuple[str, str]) -> str:
    """Return which of `programs` (each with its Debian package) are not installed, in words."""
    absent = [f"{name} (Debian: {package})" for name, package in programs if not shutil.which(name, path=PATH)]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextmanager
def open_process(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server with its output in `log`, in a process group of its own that is ended as a whole."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience_s)
        except ProcessLookupError:
            process.wait()
            return
        except subprocess.TimeoutExpired:
            continue


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has here now; a fresh namespace has all of them."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_listening(job: Job, ports: Sequence[int], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until all `ports` are listened on at the server's end.

    Raises:
        PeerError: the process ended, or they are not in time.
    """
    deadline_s = time.monotonic() + START_S
    waiting = {f"{port:04X}" for port in ports}
    while time.monotonic() < deadline_s and process.poll() is None:
        if waiting <= _listening(job):
            return
        time.sleep(0.02)
    raise PeerError(f"the server does not listen ({process.poll()}): {log_end(log)}")


def _listening(job: Job) -> set[str]:
    """Return the ports, in hexadecimal, on which anything listens at the server's end (proc(5): state 0A)."""
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(job.link.server.open(name)) as table:
                rows = [line.split() for line in table.readlines()[1:]]
        except FileNotFoundError:
            continue
        found |= {row[1].rpartition(":")[2] for row in rows if row[3] == "0A"}
    return found


def log_end(log: Path) -> str:
    """Return the end of a log on one line."""
    return " | ".join(log.read_text(errors="replace")[-LOG_END:].split("\n")).strip(" |") if log.exists() else ""


def require_success(outputs: Sequence[Output]) -> None:
    """Raise PeerError when a client failed."""
    for output in outputs:
        if output.code:
            raise PeerError(f"the client ended with {output.code}: {(output.errors or output.text)[-LOG_END:].strip()}")


def count_files(folder: Path, at_least_bytes: int) -> int:
    """Return how many files below `folder` have at least so many bytes."""
    return sum(path.is_file() and path.stat().st_size >= at_least_bytes for path in folder.rglob("*"))


def shares(files: Sequence[Path], count: int) -> list[list[Path]]:
    """Divide `files` evenly: the first gets files 0, count, 2 count, ..."""
    return [list(files[number::count]) for number in range(count)]
