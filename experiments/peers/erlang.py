"""The paper's own design (S2), written anew in Erlang: N nodes, one connection to each, a fixed share of the files.

The programs are `experiments/erlang/*.escript`; the nodes are N listening sockets of one Erlang machine.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments.namespaces import program
from experiments.peers.base import (
    Job,
    Outcome,
    Output,
    Running,
    count_files,
    lacking,
    open_process,
    require_success,
    wait_listening,
)

PROGRAMS: Final = Path(__file__).parents[1] / "erlang"
FIRST_PORT: Final = 21_000


@dataclass(frozen=True)
class Erlang:
    """The paper's streaming."""

    name: str = "erlang"
    by_nodes: bool = True

    def missing(self) -> str:
        """Return what is not installed."""
        return lacking(("escript", "erlang-base"))

    @contextmanager
    def open(self, job: Job) -> Iterator[Running]:
        """Start the server with as many listening sockets as there are nodes."""
        out, log, paths = job.folder / "received", job.folder / "erlang.log", job.folder / "paths"
        out.mkdir()
        paths.write_text("".join(f"{file}\n" for file in job.files))
        where = (job.link.server.address, FIRST_PORT, job.nodes)
        smallest = min(file.stat().st_size for file in job.files)
        command = job.link.server.command(program("escript"), PROGRAMS / "server.escript", *where, out)
        with open_process(command, log) as process:
            wait_listening(job, range(FIRST_PORT, FIRST_PORT + job.nodes), process, log)
            client = [program("escript"), PROGRAMS / "client.escript", *where, paths]
            yield Running([process.pid], [client], lambda: count_files(out, smallest), _read)


def _read(outputs: Sequence[Output]) -> Outcome:
    require_success(outputs)
    return Outcome(float(json.loads(outputs[0].text)["seconds"]))
