"""Ours: `fascicle up` at the server's end, `fascicle send` at the client's, through the commands' contract only."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from experiments.cluster import FASCICLE, start_cluster
from experiments.peers.base import Job, Outcome, Output, PeerError, Running

TOLD: Final = ("objects", "bytes", "wire_bytes", "flows", "nodes", "encodings", "bound_by", "timeline")


@dataclass(frozen=True)
class Ours:
    """A cluster of any number of nodes; `encoding` "" takes the experiment's, `flows` 0 is automatic."""

    name: str = "fascicle"
    encoding: str = ""
    flows: int = 0
    plain: bool = False
    by_nodes: bool = True

    def missing(self) -> str:
        """Return "": it is there."""
        return ""

    @contextmanager
    def open(self, job: Job) -> Iterator[Running]:
        """Start a fresh cluster."""
        server, options = job.link.server, job.options
        flags = ["--host", server.address, *["--plain"] * (self.plain or options.plain)]
        try:
            cluster = start_cluster(job.folder, *flags, nodes=job.nodes, prefix=server.command())
        except RuntimeError as error:
            raise PeerError(str(error)) from error
        words = ["send", job.files[0].parent, "--to", cluster.credentials, "--json"]
        words += ["--encoding", self.encoding or options.encoding, "--congestion", options.congestion]
        words += ["--flows", self.flows or "auto"]
        # What other runs learnt of their links is not this one's to know.
        command = ["env", f"XDG_STATE_HOME={job.folder / 'state'}", *FASCICLE, *words]
        try:
            yield Running([cluster.process.pid], [command], lambda: len(job.files), _Reader(job).read)
        finally:
            left = cluster.stop()
        if left:
            raise PeerError(f"`fascicle up` left behind: {', '.join(left)}")


@dataclass(frozen=True)
class _Reader:
    job: Job

    def read(self, outputs: Sequence[Output]) -> Outcome:
        """Read the summary; its receipt, not our count, says that all is stored."""
        [output] = outputs
        summary: dict[str, Any] = json.loads((output.text.splitlines() or ["{}"])[-1])
        if output.code or summary["objects"] != len(self.job.files) or summary["skipped"] or summary["failed"]:
            raise PeerError(f"`fascicle send` ended with {output.code}: {output.errors.strip() or output.text[-600:]}")
        return Outcome(float(summary["seconds"]), {name: summary[name] for name in TOLD if name in summary})
