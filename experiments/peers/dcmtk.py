"""DICOM's own way, C-STORE: DCMTK's storescu to storescp or to Orthanc, over one or more associations at once."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from experiments.namespaces import program
from experiments.peers.base import (
    Job,
    Outcome,
    Output,
    Running,
    count_files,
    free_ports,
    lacking,
    open_process,
    require_success,
    shares,
    wait_listening,
)

TITLE: Final = "STORE"
HEADER_BYTES: Final = 4096  # a receiver writes a file meta group of its own


@dataclass(frozen=True)
class Storescp:
    """storescu to storescp."""

    associations: int
    by_nodes: bool = False

    @property
    def name(self) -> str:
        """The name, with the number of associations."""
        return f"storescu-{self.associations}"

    def missing(self) -> str:
        """Return what is not installed."""
        return lacking(("storescu", "dcmtk"), ("storescp", "dcmtk"))

    @contextmanager
    def open(self, job: Job) -> Iterator[Running]:
        """Start storescp, which forks for each association."""
        out, log = job.folder / "received", job.folder / "storescp.log"
        out.mkdir()
        [port] = free_ports(1)
        command = [program("storescp"), "--fork", "+B", "+xa", "-aet", TITLE, "-od", out, port]
        with open_process(job.link.server.command(*command), log) as process:
            wait_listening(job, [port], process, log)
            clients = [senders(job, port, share) for share in shares(job.files, self.associations) if share]
            yield Running([process.pid], clients, lambda: count_files(out, smallest(job)), _read)


@dataclass(frozen=True)
class Orthanc:
    """storescu to Orthanc, the PACS server that many sites run."""

    associations: int = 1
    name: str = "orthanc"
    by_nodes: bool = False

    def missing(self) -> str:
        """Return what is not installed."""
        return lacking(("storescu", "dcmtk"), ("Orthanc", "orthanc"))

    @contextmanager
    def open(self, job: Job) -> Iterator[Running]:
        """Start Orthanc with a temporary configuration, at the server's end only."""
        store, log = job.folder / "store", job.folder / "orthanc.log"
        port, web = free_ports(2)
        settings = {
            "Name": "experiment",
            "StorageDirectory": str(store),
            "IndexDirectory": str(store),
            "DicomAet": TITLE,
            "DicomPort": port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "HttpPort": web,
            "RemoteAccessAllowed": False,
            "Plugins": [],
        }
        file = job.folder / "orthanc.json"
        file.write_text(json.dumps(settings))
        with open_process(job.link.server.command(program("Orthanc"), file), log) as process:
            wait_listening(job, [port], process, log)
            clients = [senders(job, port, share) for share in shares(job.files, self.associations) if share]
            yield Running([process.pid], clients, lambda: count_files(store, smallest(job)), _read)


def senders(job: Job, port: int, files: Sequence[object]) -> list[object]:
    """Return the command of one association."""
    return [program("storescu"), "-aec", TITLE, job.link.server.address, port, *files]


def smallest(job: Job) -> int:
    """Return the least size that a received file has."""
    return min(file.stat().st_size for file in job.files) - HEADER_BYTES


def _read(outputs: Sequence[Output]) -> Outcome:
    require_success(outputs)
    return Outcome()
