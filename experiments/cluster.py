"""A real cluster for experiments, tests and the demo: `fascicle up` as a subprocess, and the other commands beside it.

Everything goes through the commands' contract (design section 12): the ready line, `--json` summaries, exit codes and
pid files. Refuses to do: importing the parts that it drives.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READY_S, STOP_S = 210.0, 30.0  # `up` itself gives up before
READY_NODE_S = 2.0  # more for each node: each is four processes that share the processors
FASCICLE = (sys.executable, "-m", "fascicle")


@dataclass(frozen=True)
class Result:
    """What a finished `fascicle` command left: its exit code, JSON summary (empty without one) and standard error."""

    code: int
    summary: dict[str, Any]
    errors: str


@dataclass
class Cluster:
    """A running `fascicle up`."""

    data: Path
    log: Path
    process: "subprocess.Popen[bytes]"
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def credentials(self) -> Path:
        """The credentials file that the ready line names."""
        return Path(self.ready["credentials"])

    def pids(self) -> dict[str, int]:
        """Return role -> process id from the pid files that are there now."""
        return {file.stem: int(text) for file in self.data.glob("run/*.pid") if (text := _text(file))}

    def run(self, *words: object, timeout_s: float = 300.0) -> Result:
        """Run `fascicle WORDS --to CREDENTIALS --json` to its end."""
        return run(*words, "--to", self.credentials, "--json", timeout_s=timeout_s)

    def start(self, *words: object) -> "subprocess.Popen[bytes]":
        """Start `fascicle WORDS --to CREDENTIALS --json`, to be killed or waited for by the caller."""
        command = [*FASCICLE, *map(str, words), "--to", str(self.credentials), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment())

    def kill(self) -> None:
        """End `up` by SIGKILL; what becomes of its children is for the caller to see."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> list[str]:
        """Stop by SIGTERM; return what was left behind (processes are ended, then named), best nothing."""
        roles = {pid: role for role, pid in self.pids().items()} | {self.process.pid: "up"}
        left = []
        self.process.terminate()
        try:
            code = self.process.wait(STOP_S)
            left += [f"exit code {code}"] * (code != 0)
        except subprocess.TimeoutExpired:
            left.append(f"still running {STOP_S} s after SIGTERM")
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for pid in sorted(set(processes_of(self.data)) | {pid for pid in roles if _is_ours(pid)}):
            left.append(f"process {pid} ({roles.get(pid, 'unknown')})")
            os.kill(pid, signal.SIGKILL)
        return left + [f"pid file {file.name}" for file in self.data.glob("run/*.pid")]


@contextmanager
def open_cluster(folder: Path, *flags: str, nodes: int = 5, replicas: int = 1) -> Iterator[Cluster]:
    """Start a cluster in `folder`/data and stop it at the end.

    Raises:
        RuntimeError: not ready in time, or something was left behind.
    """
    cluster = start_cluster(folder, *flags, nodes=nodes, replicas=replicas)
    try:
        yield cluster
    finally:
        left = cluster.stop()
    if left:
        raise RuntimeError(f"`fascicle up` left behind: {', '.join(left)}\n{tail(cluster.log)}")


def start_cluster(
    folder: Path, *flags: str, nodes: int = 5, replicas: int = 1, port: int = 0, prefix: Sequence[str] = ()
) -> Cluster:
    """Start `fascicle up`, behind the words of `prefix`, and wait for its ready line; the caller stops it."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["up", "--data", folder / "data", "--nodes", nodes, "--replicas", replicas, "--port", port, *flags]
    log = folder / "up.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*prefix, *FASCICLE, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for whoever started this; `stop` is for the cluster
        )
    cluster = Cluster(folder / "data", log, process)
    try:
        cluster.ready = json.loads(_first_line(process, READY_S + READY_NODE_S * nodes))
    except (TimeoutError, EOFError, ValueError) as error:
        cluster.stop()
        raise RuntimeError(f"`fascicle up` did not become ready: {error}\n{tail(log)}") from error
    return cluster


def run(*words: object, timeout_s: float = 300.0) -> Result:
    """Run `fascicle WORDS` to its end."""
    done = subprocess.run(
        [*FASCICLE, *map(str, words)], capture_output=True, timeout=timeout_s, check=False, env=_environment()
    )
    lines = done.stdout.decode().strip().splitlines()
    summary = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Result(done.returncode, summary, done.stderr.decode(errors="replace"))


def processes_of(folder: Path) -> list[int]:
    """Return the processes, other than this one, whose command line names something in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        words = _text(entry).split("\0")
        if int(entry.parent.name) != os.getpid() and any(str(folder) in word for word in words if "fascicle" in words):
            found.append(int(entry.parent.name))
    return found


def tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of `log`."""
    return "\n".join(_text(log).splitlines()[-lines:])


def _first_line(process: "subprocess.Popen[bytes]", timeout_s: float) -> bytes:
    assert process.stdout is not None
    line, deadline = b"", time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"no ready line within {timeout_s} s")
            if not (piece := os.read(process.stdout.fileno(), 65536)):
                raise EOFError(f"it ended with exit code {process.wait()}")
            line += piece
    return line


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FASCICLE_")}


def _is_ours(pid: int) -> bool:
    return "fascicle" in _text(Path(f"/proc/{pid}/cmdline")).split("\0")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""
