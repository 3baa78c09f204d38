"""A network for each machine of a cluster, joined by this process's own, which cuts any of them from any other.

A cut has a direction: packets from one to another are let fall on the way (`ip rule ... blackhole` where they are
forwarded), so that neither side hears anything of it. Loss is of drawn packets, whoever sends them (nft's `numgen`).
All of it goes with the process. Refuses to do: anything to the networks of the machine itself.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from experiments.namespaces import call, program

CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_libc = ctypes.CDLL(None, use_errno=True)


class Nets:
    """The networks; made by `open_nets`. `addresses` by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.addresses: dict[str, str] = {}
        self._spaces: dict[str, int] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._is_lossy = False
        for number, name in enumerate(names, start=1):
            self._add(name, number)

    def enter(self, name: str) -> Callable[[], None]:
        """Return what takes a process into the network of `name`."""
        return lambda: _judge(_libc.setns(self._spaces[name], CLONE_NEWNET), f"enter {name}")

    def cut(self, source: str, target: str) -> None:
        """Let nothing come from `source` to `target` any more."""
        if (source, target) not in self._cuts:
            self._cuts.add((source, target))
            self._rule("add", source, target)

    def lose(self, share: float) -> None:
        """Let this share of all packets fall."""
        rule = f"numgen random mod 1000 < {round(1000 * share)} drop"
        call(program("nft"), f"table ip loss {{ chain forwarded {{ type filter hook forward priority 0; {rule}; }}; }}")
        self._is_lossy = True

    def heal(self) -> None:
        """Join everything again, and lose nothing."""
        if self._is_lossy:
            call(program("nft"), "delete table ip loss")
            self._is_lossy = False
        for source, target in self._cuts:
            self._rule("del", source, target)
        self._cuts.clear()

    def close(self) -> None:
        """Let go of the networks."""
        for space in self._spaces.values():
            os.close(space)

    def _rule(self, what: str, source: str, target: str) -> None:
        call(program("ip"), "rule", what, "from", self.addresses[source], "to", self.addresses[target], "blackhole")

    def _add(self, name: str, number: int) -> None:
        ip, device = program("ip"), f"fx{number}"
        address = self.addresses[name] = f"10.77.{number}.2"
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, preexec_fn=_leave_network)
        try:
            space = self._spaces[name] = os.open(f"/proc/{child.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            call(ip, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", child.pid)
        finally:
            child.communicate()
        call(ip, "address", "add", f"10.77.{number}.1/24", "dev", device)
        call(ip, "link", "set", device, "up")
        there = self.enter(name)
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", f"10.77.{number}.1"),
        ):
            subprocess.run([ip, *words], check=True, preexec_fn=there, pass_fds=(space,))


@contextmanager
def open_nets(names: Iterable[str]) -> Iterator[Nets]:
    """Put this process into a network of its own, and make one for each name."""
    _leave_network()
    call(program("ip"), "link", "set", "lo", "up")
    FORWARDING.write_text("1")
    nets = Nets(names)
    try:
        yield nets
    finally:
        nets.close()


def _leave_network() -> None:
    _judge(_libc.unshare(CLONE_NEWNET), "a network of its own")


def _judge(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
