"""Tells a user's processes of each other's transfers, so that an urgent one overtakes those of other processes too.

A running transfer holds a shared lock on a file that stands for its gateway and priority; who wants to know whether
any such runs tries to lock the file alone. The kernel lets go of a dead process's lock, so nothing is ever stale, and
no process sends signals to another. Processes of different users share the link as TCP does. Refuses to do: judging
who goes first (`transfer.control.priority`).
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import trio

from transfer.control.gate import Gate
from transfer.control.path_memory import default_path
from transfer.control.priority import Priority
from transfer.log import get_logger

log = get_logger()
LOOK_S: Final = 0.1


def default_folder(environment: Mapping[str, str]) -> Path:
    """Return where a user's processes meet."""
    return default_path(environment).parent / "running"


@contextlib.contextmanager
def announce(folder: Path, gateway: str, priority: Priority) -> Iterator[None]:
    """Show a transfer to `gateway` while it runs; a folder that cannot be used is logged, and hides it."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = _open(_path(folder, gateway, priority))
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a look of another's at most, which is microseconds
        except OSError as error:
            log.debug("presence_unknown", folder=str(folder), error=error.strerror)
        yield


def more_urgent(folder: Path, gateway: str, priority: Priority) -> set[Priority]:
    """Return the priorities above `priority` of which any process has a transfer to `gateway`."""
    return {other for other in Priority if other < priority and _is_held(_path(folder, gateway, other))}


async def serve_presence(gate: Gate, folder: Path, gateway: str, priority: Priority) -> None:
    """Show a transfer, and tell its gate of more urgent ones elsewhere, until cancelled."""
    with announce(folder, gateway, priority):
        try:
            while True:
                gate.outside(more_urgent(folder, gateway, priority))
                await trio.sleep(LOOK_S)
        finally:
            gate.outside(())


def _path(folder: Path, gateway: str, priority: Priority) -> Path:
    return folder / f"{hashlib.sha256(gateway.encode()).hexdigest()[:32]}-{priority.name.lower()}.lock"


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks tells nothing of others, and must not keep a transfer from going
        return False
    finally:
        os.close(descriptor)
    return False
