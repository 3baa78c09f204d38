"""The rules of a lock that is kept where nothing can be changed but single keys: one owner, a lease, generations.

    PREFIX.GENERATION        = the owner, written by an operation that fails when the key is there (test and set)
    PREFIX.GENERATION.beat   = a number that only the owner changes, again and again

The lock is the owner's of the highest generation. To overtake a dead owner of generation G one writes G + 1: whoever
succeeds has it, and removes what is lower. So two that overtake at once cannot both have it, which removing and writing
one key would allow. Dead is an owner whose process is known to have ended (same machine and boot), or whose beat did
not change for `LEASE_S` by the watcher's own clock. Refuses to do: reading and writing (the back ends).
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

LEASE_S: Final = 60.0
BEAT_S: Final = 5.0


class Owner(msgspec.Struct, frozen=True):
    """A process: the machine and its boot, the process id, and when it started (clock ticks since boot)."""

    machine: str
    pid: int
    start: int

    def text(self) -> str:
        """Return it as one word."""
        return f"{self.machine}/{self.pid}/{self.start}"


class Held(msgspec.Struct, frozen=True):
    """The lock as it is seen: its generation, whose it is, and the last beat ('' for none)."""

    generation: int
    owner: str
    beat: str


def this_process() -> str:
    """Return the owner's word for this process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Owner(f"{socket.gethostname()}:{boot}", os.getpid(), _start_of(os.getpid()) or 0).text()


def parse_owner(text: str) -> Owner | None:
    """Return the owner that a word names, None if it is not one."""
    machine, _, rest = text.partition("/")
    pid, _, start = rest.partition("/")
    if not machine or not pid.isdecimal() or not start.isdecimal():
        return None
    return Owner(machine, int(pid), int(start))


def has_ended(owner: str, self_word: str) -> bool:
    """Tell whether the owner is known to have ended: a process of this machine and boot that is not there any more."""
    theirs, ours = parse_owner(owner), parse_owner(self_word)
    if theirs is None or ours is None or theirs.machine != ours.machine:
        return False
    return _start_of(theirs.pid) != theirs.start


def key_of(prefix: str, generation: int) -> str:
    """Return the key that generation's owner is written under."""
    return f"{prefix}.{generation}"


def beat_key(prefix: str, generation: int) -> str:
    """Return the key of that generation's beat."""
    return f"{prefix}.{generation}.beat"


def held(prefix: str, entries: Mapping[str, str]) -> Held | None:
    """Return the lock as the entries show it; None if nobody has it."""
    generations = _generations(prefix, entries)
    if not generations:
        return None
    highest = max(generations)
    return Held(highest, entries[key_of(prefix, highest)], entries.get(beat_key(prefix, highest), ""))


def below(prefix: str, entries: Mapping[str, str], generation: int) -> list[str]:
    """Return the keys of earlier generations, which the owner of this one removes; beats before owners."""
    pattern = re.compile(re.escape(prefix) + r"\.([0-9]+)(\.beat)?")
    found = [(not match[2], key) for key in entries if (match := pattern.fullmatch(key)) and int(match[1]) < generation]
    return [key for _, key in sorted(found)]


def _generations(prefix: str, entries: Mapping[str, str]) -> list[int]:
    pattern = re.compile(re.escape(prefix) + r"\.([0-9]+)")
    return [int(match[1]) for key in entries if (match := pattern.fullmatch(key))]


def _start_of(pid: int) -> int | None:
    """Return when the process started, in ticks since boot (proc(5), stat, field 22); None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
