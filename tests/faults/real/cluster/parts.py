"""The processes of a cluster under a campaign: `fascicle` commands, forked from a process that has imported them.

A fork starts in the time that the part itself takes, where a Python of its own costs a second of a processor: kills
every second leave time for work. What runs is the command itself, in a process of its own that dies with the campaign.
Refuses to do: deciding what dies (`tests.faults.real.cluster.kills` and its neighbours).
"""

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
MODULES: Final = (
    "fascicle.cli",
    "gateway.service",
    "nodes.service",
    "agent.daemon",
    "agent.send",
    "agent.get",
    "agent.verify",
    "transfer.encodings",
    "tests.faults.real.cluster.modality",
)
CRASHED: Final = 70
_libc = ctypes.CDLL(None, use_errno=True)


def warm() -> None:
    """Import what the parts do, once."""
    for name in MODULES:
        importlib.import_module(name)
    from transfer.encodings.codecs import CODECS, load_codec

    for encoding in CODECS:
        load_codec(encoding)


class Part:
    """One process that is to run; `log` gets what it prints."""

    def __init__(self, name: str, work: Callable[[], int], log: Path, *, prepare: Callable[[], None] | None = None):
        """`prepare` is called in the child before the work, such as to enter a network namespace."""
        self.name, self._work, self.log, self._prepare = name, work, log, prepare
        self.pid = 0
        self.started_s = 0.0

    def start(self) -> None:
        """Start it; it must not run."""
        assert not self.pid, self.name
        sys.stdout.flush()
        parent, self.started_s = os.getpid(), time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            _child(self._work, self.log, self._prepare, parent)

    def ended(self) -> int | None:
        """Return the exit code (the negative signal where one ended it) once it has ended; then it may start again."""
        if not self.pid:
            return None
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False when it has ended already."""
        if not self.pid:
            return False
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)
            return True
        return False

    def end(self, number: signal.Signals = signal.SIGKILL, within_s: float = 15.0) -> int | None:
        """Send a signal and wait; one that stays is killed. Returns the exit code, None where it did not run."""
        if not self.send(number):
            return None
        deadline_s = time.monotonic() + within_s
        while (code := self.ended()) is None:
            if time.monotonic() > deadline_s:
                self.send(signal.SIGKILL)
            time.sleep(0.001)
        return code

    def tail(self, size_bytes: int = 1500) -> str:
        """Return the end of its log."""
        return self.log.read_bytes()[-size_bytes:].decode(errors="replace") if self.log.exists() else ""


def command(*words: object) -> Callable[[], int]:
    """Return the work of a `fascicle` command."""

    def run() -> int:
        from fascicle import cli

        return cli.main([str(word) for word in words])

    return run


def halt(parts: Sequence[Part]) -> None:
    """Stop the processors of parts at once, as a power cut does: nothing is answered from here on."""
    for part in parts:
        part.send(signal.SIGSTOP)
    for part in parts:
        _wait_halted(part.pid)


def _wait_halted(pid: int, within_s: float = 2.0) -> None:
    """Wait until no thread is in user mode: one in a call is held at its end, before it could tell of it."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError):  # a thread ended between two looks
            states = {
                (task / "stat").read_text().rpartition(")")[2].split()[0]
                for task in Path(f"/proc/{pid}/task").iterdir()
            }
            if "R" not in states:
                return
        if not Path(f"/proc/{pid}").exists():
            return


def _child(work: Callable[[], int], log: Path, prepare: Callable[[], None] | None, parent: int) -> None:
    code = CRASHED
    try:
        _libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(CRASHED)
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if prepare is not None:
            prepare()
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
