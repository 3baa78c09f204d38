"""A computer that runs until everything stops, and what fails on it meanwhile, as it was drawn.

When the power is cut or the process killed, `Stopped` is raised by the call at hand and by every later one, until
`start_again`. Refuses to do: the calls themselves (`machine`), deciding what is a fault too many (the histories).
"""

import errno
import os
import random
from collections.abc import Callable

from tests.faults.histories.filesystem import FileSystem

CHANGES = frozenset({"create", "mkdir", "rename", "unlink", "pwrite", "ftruncate", "fdatasync", "fsync"})
FLUSHES = frozenset({"fdatasync", "fsync", "syncfs"})
ROOM = frozenset({"create", "mkdir", "rename", "pwrite", "fdatasync", "fsync", "syncfs"})  # what a full disk fails


class Stopped(BaseException):
    """The power was cut, or the process killed: nothing of ours goes on."""


class Running:
    def __init__(self, rng: random.Random, give_way: Callable[[], None], trace: Callable[[str], None] | None) -> None:
        self._rng, self._give_way, self._trace = rng, give_way, trace
        self.disk = FileSystem(rng)
        self.now_s = 1_800_000_000.0
        self.calls = 0
        self.faults = 0  # since the last start, those of the kernel's own included
        self.all_faults = 0
        self.fault_ratio = 0.0
        self.flush_fault_ratio = 0.0
        self.neglect_ratio = 0.0  # of calls at which the kernel fails to write something back by itself
        self.short_ratio = 0.0
        self.stop_at: int | None = None  # the call at which everything stops
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def start_again(self, *, power_cut: bool) -> None:
        """Go on with no process: after a power cut with what the disk has, else with what was visible."""
        self._stopped, self.stop_at = False, None
        if power_cut or self.disk.read_only:  # which nothing but a mount ends
            self.disk.cut_power()
        self.faults = 1 if self.disk.has_untold_errors() else 0  # the next flush tells of them

    def note(self, what: str) -> None:
        if self._trace is not None:
            self._trace(what)

    def end_faults(self) -> None:
        """Let everything succeed."""
        self.fault_ratio = self.flush_fault_ratio = self.neglect_ratio = self.short_ratio = 0.0

    def draw_faults(self) -> None:
        """Draw how often what fails until `end_faults`: nothing, anything, flushes above all."""
        rng = self._rng
        if rng.random() < 0.4:
            return
        self.fault_ratio, self.short_ratio = rng.choice((0.0, 0.0, 0.01, 0.06)), rng.choice((0.0, 0.2))
        self.flush_fault_ratio = rng.choice((0.0, 0.0, 0.1, 0.3))
        self.neglect_ratio = rng.choice((0.0, 0.0, 0.02, 0.1))

    def fault(self, what: str) -> None:
        self.faults += 1
        self.all_faults += 1
        self.note(f"    ! {what}")

    def _enter(self, call: str, subject: str = "") -> None:
        """Begin a system call: others may go first, and everything may stop here, or this call fail."""
        self.go_on()
        self._give_way()
        self.go_on()
        self.calls += 1
        if self.calls == self.stop_at:
            self.note(f"    ! everything stops before {call} {subject}")
            self._stopped = True
            self.go_on()
        self.note(f"    {call} {subject}")
        if self.disk.read_only and call in CHANGES:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), subject)
        if self.neglect_ratio and self._rng.random() < self.neglect_ratio:
            self._neglect()
        ratio = max(self.fault_ratio, self.flush_fault_ratio) if call in FLUSHES else self.fault_ratio
        if ratio and self._rng.random() < ratio and call != "close":
            self._fail(call, subject)

    def go_on(self) -> None:
        if self._stopped:
            raise Stopped

    def _fail(self, call: str, subject: str) -> None:
        number = errno.ENOSPC if call in ROOM and self._rng.random() < 0.4 else errno.EIO
        self.fault(f"{errno.errorcode[number]} from {call} {subject}")
        raise OSError(number, os.strerror(number), subject)

    def _neglect(self) -> None:
        """Let the kernel fail to write something back by itself, or forget clean pages."""
        if dirty := self.disk.dirty_files():
            self.fault("writeback fails")
            self.disk.write_back(self._rng.choice(dirty))
            if self._rng.random() < 0.5:
                self.disk.errors.tell()  # to another program, which flushed the file system just now
        for file in self.disk.files():
            if self._rng.random() < 0.5:
                file.evict()

    def _break_down(self) -> None:
        if self._rng.random() < 0.1:
            self.fault("the file system is read-only from now on")
            self.disk.read_only = True
