"""Two network namespaces, the ends of a link: made, named after this process, and removed whatever happens.

Names of namespaces and control groups carry the process id (`fxp123n0c`: the client's end of process 123's first link),
so that what a killed process left is known as such and removed by the next one. Refuses to do: shaping
(`experiments.links`).
"""

import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments import accounting
from transfer.errors import FascicleError, SettingsError

PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
NAMED: Final = Path("/run/netns")
PREFIX: Final = "fxp"
CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
CLIENT_ADDRESS, SERVER_ADDRESS = "10.211.0.1", "10.211.0.2"
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class LinkError(FascicleError):
    """A link that cannot be made, or is not what it should be."""

    code = "link"


@dataclass(frozen=True)
class Side:
    """One end of a link: how a command is run there, and the address that the other end knows it by."""

    address: str
    device: str
    namespace: str = ""  # "": the machine's own
    framed: bool = True  # the device counts Ethernet frames; a TUN device counts what is in them
    group: Path | None = None  # the control group of everything that runs here

    def command(self, *words: object) -> list[str]:
        """Return the command line that runs `words` at this end."""
        prefix = accounting.entering(self.group) if self.group else []
        if self.namespace:
            prefix += [program("ip"), "netns", "exec", self.namespace]
        return [*prefix, *map(str, words)]

    def open(self, path: str) -> int:
        """Open a file of /proc/net (named without that) of this end for reading; the descriptor stays with it.

        Raises:
            OSError: the namespace or the file is gone.
        """
        if not self.namespace:
            return os.open(f"/proc/net/{path}", os.O_RDONLY | os.O_CLOEXEC)
        opened: list[int | OSError] = []
        thread = threading.Thread(target=self._open_there, args=(path, opened))  # the thread moves, not the process
        thread.start()
        thread.join()
        if isinstance(opened[0], OSError):
            raise opened[0]
        return opened[0]

    def _open_there(self, path: str, opened: list[int | OSError]) -> None:
        try:
            namespace = os.open(NAMED / self.namespace, os.O_RDONLY | os.O_CLOEXEC)
            moved = _libc.setns(namespace, CLONE_NEWNET)
            os.close(namespace)
            opened.append(
                OSError(ctypes.get_errno(), f"setns {self.namespace}")
                if moved
                else os.open(f"/proc/thread-self/net/{path}", os.O_RDONLY | os.O_CLOEXEC)
            )
        except OSError as error:
            opened.append(error)


def program(name: str) -> str:
    """Return the path of a program that the machine has.

    Raises:
        SettingsError: it is not installed.
    """
    found = shutil.which(name, path=PATH)
    if found is None:
        raise SettingsError(f"{name} is not installed")
    return found


def call(*words: object) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        LinkError: it failed.
    """
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise LinkError(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def why_not() -> str:
    """Return why namespaces cannot be made here; "" when they can."""
    if shutil.which("ip", path=PATH) is None:
        return "`ip` (Debian: iproute2) is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with open_namespaces():
            return ""
    except LinkError as error:
        return error.message


@contextmanager
def open_namespaces() -> Iterator[tuple[str, str]]:
    """Make the client's and the server's namespace, with a loopback each; remove both at the end.

    Raises:
        LinkError: the kernel or the rights do not allow it.
    """
    number = next(_numbers) % 100  # a device's name has room for two digits
    names = tuple(f"{PREFIX}{os.getpid()}n{number}{end}" for end in "cs")
    try:
        for name in names:
            call(program("ip"), "netns", "add", name)
            call(program("ip"), "-n", name, "link", "set", "lo", "up")
        yield names[0], names[1]
    finally:
        for name in names:
            remove(name)


def remove(name: str) -> None:
    """Remove a namespace and with it its devices; one that is not there is fine."""
    if (NAMED / name).exists():
        subprocess.run([program("ip"), "netns", "del", name], capture_output=True, check=False, timeout=30)


def remove_stale() -> list[str]:
    """Remove the namespaces and control groups of dead processes, with all that runs in them; return their names."""
    groups = accounting.mount_point()
    places = [place for place in (NAMED, groups) if place is not None and place.is_dir()]
    stale = sorted({path.name for place in places for path in place.glob(f"{PREFIX}*") if _is_stale(path.name)})
    for name in stale:
        _end_all(name)
        remove(name)
        if groups is not None:
            accounting.remove(groups / name)
    return stale


def _end_all(name: str) -> None:
    """Kill what a dead process's servers and clients are still doing in its namespace."""
    if (NAMED / name).exists():
        for pid in call(program("ip"), "netns", "pids", name).split():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(int(pid), signal.SIGKILL)


def _is_stale(name: str) -> bool:
    match = re.fullmatch(rf"{PREFIX}([0-9]+)n[0-9]+[cs]", name)
    return match is not None and not Path(f"/proc/{match[1]}").exists()
