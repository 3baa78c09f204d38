"""A forker whose codec has the faults of a bad library: what the stored strip says, it does.

A strip that is one of `FAULTS` does that, one that is `probe` tries what is forbidden, any other one decodes.
"""

import ctypes
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Never

import numpy as np

from transfer.decoders import child, forker
from transfer.errors import CorruptError

CPU_S = 1


def _spin() -> None:
    while True:
        pass


def _take(size: int = 1 << 30) -> None:
    held = mmap.mmap(-1, size)
    held.close()


def _take_in_library() -> None:
    ctypes.CDLL(None).malloc.restype = ctypes.c_void_p
    if not ctypes.CDLL(None).malloc(ctypes.c_size_t(1 << 30)):
        os.abort()  # as C++ does with what nobody catches


def _leave_out_answer() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    time.sleep(3600)


FAULTS: dict[bytes, Callable[[], object]] = {
    b"segfault": lambda: ctypes.string_at(0),
    b"abort": os.abort,
    b"spin": _spin,
    b"memory": lambda: bytearray(1 << 30),
    b"library memory": _take_in_library,
    b"exit": lambda: os._exit(7),
    b"sleep": _leave_out_answer,
    b"unknown error": lambda: {}["there is none"],
}
FORBIDDEN: dict[str, Callable[[], object]] = {
    "open a file": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "make a file": lambda: os.open("/tmp/made-by-a-decoder", os.O_CREAT | os.O_WRONLY, 0o600),
    "open a socket": lambda: socket.socket(),
    "start a process": os.fork,
    "start a thread": lambda: __import__("_thread").start_new_thread(time.sleep, (0,)),
    "end its forker": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "be root": lambda: os.setuid(0),
    "map much memory": _take,
    "lift its limits": lambda: __import__("resource").setrlimit(7, (100, 100)),
}


class Faulty:
    def decode(self, stored: memoryview, form: tuple[int, int, int, int]) -> object:
        wish = bytes(stored)
        if wish == b"probe":
            raise CorruptError("; ".join(what for what, attempt in FORBIDDEN.items() if not _is_refused(attempt)))
        if wish == b"junk":
            raise CorruptError("a\nb" + "\x1b" * 500)
        if wish in FAULTS:
            FAULTS[wish]()
        rows, columns, components, sample_bytes = form
        return np.full((rows, columns, components), len(wish), f"<u{sample_bytes}")


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, RuntimeError, ValueError):  # of threads and limits, these
        return True
    return False


def main(descriptor: int) -> Never:
    child.CPU_S = CPU_S  # type: ignore[misc]  # quicker here
    child.load_codec = lambda _: Faulty()  # type: ignore[assignment]  # the fault
    forker._warm = lambda _: None  # type: ignore[assignment]  # nothing to warm
    forker.main(descriptor)


if __name__ == "__main__":
    main(int(sys.argv[1]))
