"""Rot on the disks of a running cluster under load: one replica of an object is changed behind its node's back.

Nothing is done about it. The scrubber must find it, and the gateway have the other replica copied, to the same node or
another, so that the object lies again on as many disks as before, in files that are to the byte what they were. (What
rots before its commit is sent again by its sender, perhaps in another encoding.) The other replica is left alone until
then: what rots everywhere cannot be repaired. Refuses to do: rot that nobody could notice (a change that changes
nothing).
"""

import contextlib
import random
import time
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from nodes.objectfile import HEADER_BYTES, decode_header
from tests.faults.real.cluster.running import Running
from tests.faults.real.corruption import CHANGES
from transfer.errors import CorruptError

WAIT_S: Final = (0.0, 0.3)
ROTTEN_MAX: Final = 32  # at a time
HEALED_S_MAX: Final = 60.0
EARLY: Final = 0.2  # of the attempts, at what is stored and not committed
LOOK_S: Final = 1.0  # between two looks at what the disks hold
NODE: Final = {"scrub_every_s": 1.0, "scrub_bytes_per_s": 1 << 30}  # else found within a week


class _Rotten(NamedTuple):
    """An object of which a file rotted: what its files were, and when and how one changed."""

    sound: list[bytes]
    since_s: float
    words: str


class Rot:
    """Lets replicas rot; `counts` by the change."""

    def __init__(self, running: Running, seed: int) -> None:
        self._running, self._seed = running, seed
        self._rotten: dict[str, _Rotten] = {}
        self._held: dict[str, list[Path]] = {}
        self._looked_s = float("-inf")
        self.counts = {change.__name__: 0 for change in CHANGES}
        self.early = 0  # of those of which no commit had told
        self.healed = 0
        self.healed_s_max = 0.0

    def rot(self, number: int) -> None:
        """Change one replica, as number `number` of the seed says, once few enough others are rotten."""
        chance = random.Random(f"{self._seed} {number}")
        self._running.go_on(chance.uniform(*WAIT_S))
        while len(self._rotten) >= ROTTEN_MAX or not self._change(chance, number):
            self._running.go_on(0.05)
            self._look()
        self._look()

    def wait(self) -> None:
        """Wait until all that rotted is as it was."""
        while self._rotten:
            self._running.go_on(0.05)
            self._look()

    def _change(self, chance: random.Random, number: int) -> bool:
        early = chance.random() < EARLY
        twice = [name for name, paths in self._replicas(early).items() if len(paths) > 1 and name not in self._rotten]
        chosen = self._unshown(twice) if early else twice
        if not chosen or len(twice) < 2:
            return False
        name = chance.choice(sorted(chosen))
        other = chance.choice(sorted(set(twice) - {name}))
        path, change = chance.choice(self._held[name]), chance.choice(CHANGES)
        sound = [each.read_bytes() for each in self._held[name]]
        file = bytearray(path.read_bytes())
        before = bytes(file)
        change(file, chance, chance.choice(self._held[other]).read_bytes())
        if file == before:
            file[-1] ^= 1
        path.write_bytes(file)
        words = f"rot {number}, {change.__name__} of {len(file)} bytes of {name} at {path.parents[3].name}"
        self._rotten[name] = _Rotten(sound, time.monotonic(), words)
        self.counts[change.__name__] += 1
        self.early += early
        return True

    def _unshown(self, names: list[str]) -> list[str]:
        """Return those of which no commit has told yet."""
        with contextlib.closing(self._running.site.open_catalogue()) as link:
            shown = {object_id.hex() for (object_id,) in link.execute("SELECT object_id FROM object WHERE visible")}
        return [name for name in names if name not in shown]

    def _replicas(self, now: bool) -> dict[str, list[Path]]:
        """Return where each object lies `now`, or as of a moment ago."""
        if now or time.monotonic() - self._looked_s > LOOK_S:
            self._held = {}
            for path in sorted((self._running.site.data / "nodes").glob("*/objects/??/??/*")):
                self._held.setdefault(path.name, []).append(path)
            self._looked_s = time.monotonic()
        return self._held

    def _look(self) -> None:
        """Note what is repaired, and what is not in time."""
        now_s = time.monotonic()
        for name, each in list(self._rotten.items()):
            if self._sound_copies(name, each) >= len(each.sound):
                self.healed += 1
                self.healed_s_max = max(self.healed_s_max, round(now_s - each.since_s, 1))
                del self._rotten[name]
            elif now_s - each.since_s > HEALED_S_MAX:
                self._running.totals.note(each.words, [f"not repaired within {HEALED_S_MAX:.0f} s"])
                del self._rotten[name]

    def _sound_copies(self, name: str, each: _Rotten) -> int:
        count = 0
        for path in (self._running.site.data / "nodes").glob(f"*/objects/{name[:2]}/{name[2:4]}/{name}"):
            with contextlib.suppress(FileNotFoundError):  # put aside meanwhile
                file = path.read_bytes()
                count += file in each.sound or _is_sound(name, file)
        return count


def _is_sound(name: str, file: bytes) -> bool:
    """Tell whether a file is whole, and of this object: the judge fetches it in the end, and looks at its bytes."""
    try:
        header = decode_header(file)
    except CorruptError:
        return False
    return header.record.object_id == name and header.stored_digest == blake3(file[HEADER_BYTES:]).digest()
