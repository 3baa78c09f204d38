"""What a child gives up before it sees the first byte of a peer: everything but its channel and its memory.

Afterwards it cannot open a file or a socket (no descriptor above its channel's can be had), write one, start a process,
gain a right, or take more than `memory_bytes` above what it has; started as root it is nobody. Linux only. Refuses to
do: filtering system calls.
"""

import contextlib
import ctypes
import os
import resource
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_NOBODY: Final = 65534


def confine(channel: int, *, memory_bytes: int, forker: int) -> None:
    """Confine this process to the descriptor `channel`; it ends with its parent, the process `forker`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of a terminal; whoever asks decides
    os.closerange(0, channel)
    os.closerange(channel + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    mapped_bytes = _mapped_bytes(channel)
    if os.geteuid() == 0:
        _become_nobody()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the user has changed, which forgets it
    if os.getppid() != forker:
        os._exit(0)
    limits = {
        resource.RLIMIT_AS: mapped_bytes + memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))


def _mapped_bytes(channel: int) -> int:
    """Return what is mapped now (proc(5), statm); the file is closed again."""
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        pages = int(os.read(descriptor, 200).split()[0])
    finally:
        os.close(descriptor)
    return pages * resource.getpagesize()


def _become_nobody() -> None:
    """Give up root's rights; inside a container without that right the other limits must do."""
    with contextlib.suppress(OSError):  # not permitted in such a container
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
