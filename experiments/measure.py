"""One run of one peer: fresh server, `sync`, the clients at their end of the link, timed and sampled, then checked.

Refuses to do: deciding what is run, keeping results.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from experiments.peers.base import Job, Output, Peer, PeerError, Running
from experiments.sampling import Sampler

REST_S: Final = 2.0  # a start of 30 nodes, and the end of those before, keep the kernel busy for a while
PATIENCE_S: Final = 120.0
PATIENCE_FLOORS: Final = 12.0
PATIENCE_ROUND_TRIPS: Final = 20  # an object; FTP takes 6 or 7
Figures = dict[str, Any]


def measure(peer: Peer, job: Job) -> Figures:
    """Run `peer` once and return its figures; bytes, seconds and processor seconds are of the transfer only.

    Raises:
        FascicleError: the server did not start, a client failed, or not every file arrived.
    """
    size = sum(file.stat().st_size for file in job.files)
    with peer.open(job) as running:
        os.sync()  # nobody pays for another's dirty pages
        time.sleep(REST_S)
        sampler = Sampler(job.link, running.roots)
        sampler.start()
        try:
            outputs, process_s, client_s = _run_clients(job, running, sampler, patience_s(job, size))
        finally:
            figures = sampler.finish()
        outcome = running.read(outputs)
        if (count := running.arrived()) < len(job.files):
            raise PeerError(f"only {count} of {len(job.files)} files arrived")
    seconds = process_s if outcome.seconds is None else outcome.seconds
    floor_s = job.link.profile.floor_s(size)
    return {
        "objects": len(job.files),
        "bytes": size,
        "seconds": round(seconds, 4),
        "process_s": round(process_s, 4),
        "floor_s": round(floor_s, 4),
        "client_processor_s": round(client_s, 3),
        **figures,
        "told": outcome.told,
    }


def patience_s(job: Job, size_bytes: int) -> float:
    """Return after how long a run is given up."""
    profile = job.link.profile
    waits_s = PATIENCE_ROUND_TRIPS * len(job.files) * profile.delay_ms / 1e3
    return PATIENCE_S + PATIENCE_FLOORS * profile.floor_s(size_bytes) + waits_s


def _run_clients(job: Job, running: Running, sampler: Sampler, limit_s: float) -> tuple[list[Output], float, float]:
    """Return what the clients left, the seconds until the last had ended, and their processor seconds."""
    with _open_clients(job, running.clients) as clients:
        begin_s = time.monotonic()
        for process, _ in clients:
            sampler.add_client(process.pid)
        processor_s = sum(_wait(process, begin_s + limit_s) for process, _ in clients)
        end_s = time.monotonic()
        outputs = [
            Output(process.returncode, stem.with_suffix(".out").read_text(), stem.with_suffix(".err").read_text())
            for process, stem in clients
        ]
    return outputs, end_s - begin_s, processor_s


@contextmanager
def _open_clients(
    job: Job, commands: Sequence[Sequence[object]]
) -> Iterator[list[tuple["subprocess.Popen[bytes]", Path]]]:
    clients: list[tuple[subprocess.Popen[bytes], Path]] = []
    try:
        for number, command in enumerate(commands):
            stem = job.folder / f"client-{number}"
            with stem.with_suffix(".out").open("wb") as out, stem.with_suffix(".err").open("wb") as errors:
                process = subprocess.Popen(
                    job.link.client.command(*command),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    env=_environment(job),
                    start_new_session=True,
                )
            clients.append((process, stem))
        yield clients
    finally:
        for process, _ in clients:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def _environment(job: Job) -> dict[str, str]:
    """Return an environment without settings of ours, and where nothing is remembered of earlier transfers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASCICLE_")}
    return kept | {"XDG_STATE_HOME": str(job.folder / "state")}


def _wait(process: "subprocess.Popen[bytes]", deadline_s: float) -> float:
    """Wait for a client to end and return its processor seconds (those of its children with them)."""
    descriptor = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline_s - time.monotonic())):
                raise PeerError("the client did not end in time")
    finally:
        os.close(descriptor)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime
