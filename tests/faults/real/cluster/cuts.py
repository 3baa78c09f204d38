"""Power cuts of a running cluster under load: one node alone, all nodes, the gateway, the agent, or all of them.

Each has a disk of its own. With its power a machine's processors stop first: its processes are halted where they are,
then the disk is cut, then they are killed; so nothing is answered that the disk did not get. Everybody else goes on.
Refuses to do: cutting the power of who sends (a source that is lost was promised nothing).
"""

import contextlib
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.faults.real.cluster.parts import Part, halt
from tests.faults.real.cluster.running import Running
from tests.faults.real.loop import Disk, open_disk

WAIT_S: Final = (0.3, 1.7)
VICTIMS: Final = ("a node", "a node", "all nodes", "gateway", "gateway", "agent", "all")
OBJECT_INODES: Final = 2.5  # a file and, while there are few, two folders; replicas included, of three nodes
NODE_BYTES: Final = 3 * 4096


class Cuts:
    """Cuts in one running cluster, whose parts lie on `disks` (by folder); `counts` are cuts by victim."""

    def __init__(self, running: Running, disks: dict[str, Disk], seed: int) -> None:
        self._running, self._disks, self._seed = running, disks, seed
        self.counts: dict[str, int] = dict.fromkeys(VICTIMS, 0)

    def cut(self, number: int) -> bool:
        """Let cut `number` happen; tell whether all of its parts were at work."""
        chance = random.Random(f"{self._seed} {number}")
        self._running.go_on(chance.uniform(*WAIT_S))
        victim = chance.choice(VICTIMS)
        self.counts[victim] += 1
        parts = self._parts(victim, chance)
        at_work = all(part.pid for part in parts)
        alive = [part for part in parts if part.pid]
        self._running.excused.update(part.name for part in parts)
        halt(alive)
        for part in parts:
            self._disk(part).cut()
        for part in alive:
            part.end(signal.SIGKILL)
        for part in parts:
            self._disk(part).restore()
        return at_work

    def _parts(self, victim: str, chance: random.Random) -> list[Part]:
        site = self._running.site
        one = chance.choice(site.nodes)
        return {
            "a node": [one],
            "all nodes": site.nodes,
            "gateway": [site.gateway],
            "agent": [site.agent],
            "all": site.parts,
        }[victim]

    def _disk(self, part: Part) -> Disk:
        return self._disks[part.name if part.name in self._disks else f"nodes/{part.name}"]


@contextlib.contextmanager
def open_disks(work: Path, data: Path, folders: Sequence[str], *, objects: int) -> Iterator[dict[str, Disk]]:
    """Make a disk for each folder of `data`, with room for so many objects."""
    inodes = 5_000 + round(objects * OBJECT_INODES)
    size_mib = 256 + (objects * NODE_BYTES >> 20) + (inodes * 256 >> 20)
    with contextlib.ExitStack() as stack:
        yield {
            folder: stack.enter_context(
                open_disk(work / "disks" / folder, size_mib, mount=data / folder, inodes=inodes)
            )
            for folder in folders
        }
