"""One level of supervision: child processes of the operating system, each restarted when it ends (OTP's one_for_one).

`decide` is the rule, a pure function: start again after a pause that grows while the child keeps dying young, and give
up when it dies too often. `serve_children` is the thin driver: one task a child, each in a process group of its own (so
that Ctrl-C on a terminal reaches only the supervisor), with a log file and a pid file. Children get SIGKILL from the
kernel when the supervisor dies, however it dies. Refuses to do: knowing what the children are, talking to them.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import msgspec
import trio

from transfer.errors import CrashedError, SettingsError

LOG_BYTES_MAX: Final = 16 << 20
STOP_S: Final = 10.0
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Restart intensity: more than `restarts_max` in `period_s` seconds is given up.

    The longest pause lets a child that dies at once still exceed the intensity: 30 x (1 s + its start) < 60 s.
    """

    restarts_max: int = 30
    period_s: float = 60.0
    pause_min_s: float = 0.1
    pause_max_s: float = 1.0
    young_s: float = 5.0


class Again(msgspec.Struct, frozen=True):
    """Start the child again after a pause; `deaths_s` are the times of death to remember."""

    pause_s: float
    deaths_s: tuple[float, ...]


class GiveUp(msgspec.Struct, frozen=True):
    """The child has died too often."""

    restarts: int


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A process to keep running; those of a lower `stage` are stopped first."""

    name: str
    command: tuple[str, ...]
    stage: int
    log: Path
    pid_file: Path


class Started(msgspec.Struct, frozen=True):
    """A child runs."""

    child: Child
    pid: int


class Ended(msgspec.Struct, frozen=True):
    """A child has ended; `status` is its exit code, or the negated signal that ended it."""

    child: Child
    status: int
    lived_s: float


Event: TypeAlias = Started | Ended
Listener: TypeAlias = Callable[[Event], None]  # may raise, which stops everything
POLICY: Final = Policy()


def decide(deaths_s: tuple[float, ...], now_s: float, policy: Policy = POLICY) -> Again | GiveUp:
    """Return what to do about a child that died at `now_s` (any monotonic clock) after its earlier `deaths_s`."""
    deaths = (*(death for death in deaths_s if now_s - death <= policy.period_s), now_s)
    if len(deaths) > policy.restarts_max:
        return GiveUp(len(deaths) - 1)
    in_a_row = 1
    while in_a_row < len(deaths) and deaths[-in_a_row] - deaths[-in_a_row - 1] < policy.young_s:
        in_a_row += 1
    return Again(min(policy.pause_max_s, policy.pause_min_s * 2 ** (in_a_row - 1)), deaths)


async def serve_children(
    children: Sequence[Child],
    tell: Listener,
    *,
    policy: Policy = POLICY,
    stop_s: float = STOP_S,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep all children running until cancelled; on return none is left and their pid files are gone.

    `tell` hears every start and end. Started when each child was started once.

    Raises:
        CrashedError: a child was given up (in an exception group).
        SettingsError: a child cannot be started (in an exception group).
    """
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        async with trio.open_nursery() as nursery:
            for child in children:
                await nursery.start(_keep, child, running, tell, policy)
            task_status.started()
    finally:
        with trio.CancelScope(shield=True):
            await _stop(children, running, stop_s)


def ending(status: int) -> str:
    """Return a process status in words."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


async def _keep(
    child: Child,
    running: dict[str, subprocess.Popen[bytes]],
    tell: Listener,
    policy: Policy,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    deaths_s: tuple[float, ...] = ()
    while True:
        born_s = trio.current_time()
        process = running[child.name] = _start(child)
        tell(Started(child, process.pid))
        if not deaths_s:
            task_status.started()
        await _wait_end(process)
        tell(Ended(child, process.returncode, trio.current_time() - born_s))
        decision = decide(deaths_s, trio.current_time(), policy)
        if isinstance(decision, GiveUp):
            raise CrashedError(
                f"{child.name} ended again ({ending(process.returncode)}) after {decision.restarts} restarts within "
                f"{policy.period_s:.0f} s; see {child.log}"
            )
        deaths_s = decision.deaths_s
        await trio.sleep(decision.pause_s)


def _start(child: Child) -> subprocess.Popen[bytes]:
    """Start the child from this thread: the kernel's promise is bound to the life of the thread that forks.

    So `trio.run_process`, which forks in a worker thread, would have its children killed when that thread retires.
    """
    try:
        with _open_log(child.log) as log:
            process = subprocess.Popen(  # noqa: S603  (our own command)
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  (takes no lock: two system calls)
            )
        temporary = child.pid_file.with_suffix(".new")
        temporary.write_text(f"{process.pid}\n")
        temporary.rename(child.pid_file)
    except OSError as error:
        raise SettingsError(f"{child.name} cannot be started: {error}") from error
    return process


def _die_with(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it died before the promise was made
            os._exit(1)

    return prepare


def _open_log(path: Path) -> BinaryIO:
    """Open a log to append to; one that has grown large is kept as the previous one."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


async def _wait_end(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has ended, and reap it."""
    if process.poll() is not None:
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    process.wait()


async def _stop(children: Sequence[Child], running: dict[str, subprocess.Popen[bytes]], stop_s: float) -> None:
    for stage in sorted({child.stage for child in children}):
        async with trio.open_nursery() as nursery:
            for child in children:
                if child.stage == stage and child.name in running:
                    nursery.start_soon(_end, child, running[child.name], stop_s)


async def _end(child: Child, process: subprocess.Popen[bytes], stop_s: float) -> None:
    """Ask the child to end, wait, then kill its process group."""
    if process.poll() is None:
        process.terminate()
        with trio.move_on_after(stop_s):
            await _wait_end(process)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        await _wait_end(process)
    child.pid_file.unlink(missing_ok=True)
