"""A real cluster and real senders at the two ends of a link, for what a plain run does not show: cuts, kills, rivals.

Refuses to do: judging (`experiments.resume`, `experiments.overtaking`).
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from experiments.cluster import FASCICLE, Cluster, start_cluster, tail
from experiments.links import Link
from experiments.peers.base import PeerError

SEND_S: Final = 300.0


@dataclass(frozen=True)
class Place:
    """A link with a running cluster at its server's end, and a folder to work in."""

    link: Link
    cluster: Cluster
    folder: Path

    @contextmanager
    def open_command(self, *words: object) -> Iterator["subprocess.Popen[str]"]:
        """Run `fascicle WORDS` at the client's end; whatever is left of it is killed on the way out."""
        state = f"XDG_STATE_HOME={self.folder / 'state'}"  # what others remember, and who else runs, is not this one's
        command = ["env", state, *FASCICLE, *words, "--to", self.cluster.credentials, "--json"]
        with (self.folder / "client.log").open("ab") as errors:
            process = subprocess.Popen(
                self.link.client.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            kill(process)

    def run_command(self, *words: object) -> dict[str, Any]:
        """Run `fascicle WORDS` at the client's end to its end; return its summary."""
        with self.open_command(*words) as process:
            return self.summary(process)

    def summary(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        """Wait for a command and return its summary.

        Raises:
            PeerError: it failed, or takes too long.
        """
        try:
            output, _ = process.communicate(timeout=SEND_S)
        except subprocess.TimeoutExpired:
            raise PeerError(f"a command took longer than {SEND_S:.0f} s") from None
        if process.returncode:
            raise PeerError(f"a command ended with {process.returncode}: {tail(self.folder / 'client.log')}{output}")
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a command with all that it started, and wait for its end; one that has ended is fine."""
    with suppress(ProcessLookupError):  # it ended meanwhile
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def open_place(link: Link, folder: Path, nodes: int) -> Iterator[Place]:
    """Start a fresh cluster in `folder` and stop it at the end.

    Raises:
        PeerError: it does not start, or leaves something behind.
    """
    try:
        cluster = start_cluster(folder, "--host", link.server.address, nodes=nodes, prefix=link.server.command())
    except RuntimeError as error:
        raise PeerError(str(error)) from error
    try:
        yield Place(link, cluster, folder)
    finally:
        left = cluster.stop()
    if left:
        raise PeerError(f"`fascicle up` left behind: {', '.join(left)}")
