"""A process that forks a run of apply for each line that it reads, so that a run costs no start of an interpreter.

    in:   {"task": "apply" or "reconcile", of which it is one round, "folder": ..., "socket": ...}
    out:  the run's process id, then how it ended (as `waitpid` says)

The run is a real process with the real back end; it can be killed at any moment.
"""

import json
import os
import sys
from pathlib import Path

import trio

from tests.xen.cloud_link import LinkedCloud
from transfer import log
from transfer.errors import FascicleError
from xen import apply, lease, poolfile, steps
from xen.apply import Run
from xen.growing import Grower
from xen.holding import open_lock
from xen.metrics import Metrics
from xen.reconcile import round_once
from xen.xenapi.backend import open_backend


async def run(task: str, folder: Path, socket: str) -> None:
    """Apply the pool file in the folder."""
    path = folder / "pool.toml"
    file = poolfile.load(path, {})
    assert file.xenapi is not None
    with open_backend(file.xenapi, file.cluster, folder) as backend:
        cloud = LinkedCloud(socket)
        owner = lease.this_process()
        if task == "reconcile":
            grower = Grower(path, Metrics())
            await round_once(file, backend, cloud, owner=owner, say=lambda line: None, grower=grower)
            return
        async with open_lock(backend, owner, file.watch.lock_wait_s) as lock:
            await Run(file, backend, cloud, lock, lambda line: None).until_as(file.wanted())


def child(order: dict[str, str]) -> int:
    """Run, and return the exit code."""
    try:
        trio.run(run, order["task"], Path(order["folder"]), order["socket"])
    except FascicleError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


def main() -> None:
    """Fork for each line."""
    log.configure(role="xen", level="error")
    steps.ASK_EVERY_S = apply.PAUSE_S = 0.02  # type: ignore[misc]  # quicker here
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            code = 70
            try:
                code = child(order)
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
