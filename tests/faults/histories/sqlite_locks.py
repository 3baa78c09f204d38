"""Locks and shared memory of SQLite's databases, among the connections of one simulated process.

Neither outlives the process: the kernel lets go of locks, and whoever opens a database first makes its shared memory
anew. Refuses to do: the disk.
"""

import ctypes

from tests.faults.histories import sqlite_abi as abi


class Locks:
    """Of one database file; a connection's hold on it is known by its number."""

    def __init__(self) -> None:
        self.levels: dict[int, int] = {}
        self._regions: dict[int, ctypes.Array] = {}
        self._mapped: set[int] = set()
        self._slots: list[dict[int, bool]] = [{} for _ in range(abi.SHM_LOCKS)]  # who holds it: whether alone

    def lock(self, number: int, level: int) -> int:
        others = max((each for key, each in self.levels.items() if key != number), default=0)
        if level <= self.levels.get(number, 0):
            return abi.OK
        if (level == abi.SHARED and others >= abi.PENDING) or (level == abi.RESERVED and others >= abi.RESERVED):
            return abi.BUSY
        if level == abi.EXCLUSIVE and others:
            if others < abi.RESERVED:
                self.levels[number] = abi.PENDING
            return abi.BUSY
        self.levels[number] = level
        return abi.OK

    def unlock(self, number: int, level: int) -> None:
        self.levels[number] = min(level, self.levels.get(number, 0))

    def is_reserved(self) -> bool:
        return any(level >= abi.RESERVED for level in self.levels.values())

    def map(self, number: int, region: int, length: int, extend: bool) -> int:
        """Return the address of a piece of shared memory, 0 where there is none yet and none is to be made."""
        self._mapped.add(number)
        if region not in self._regions:
            if not extend:
                return 0
            self._regions[region] = ctypes.create_string_buffer(length)
        return ctypes.addressof(self._regions[region])

    def unmap(self, number: int) -> None:
        self._mapped.discard(number)
        for slot in self._slots:
            slot.pop(number, None)
        if not self._mapped:
            self._regions.clear()

    def lock_slots(self, number: int, first: int, count: int, flags: int) -> int:
        slots = self._slots[first : first + count]
        if flags & abi.SHM_UNLOCK:
            for slot in slots:
                slot.pop(number, None)
            return abi.OK
        alone = not flags & abi.SHM_SHARED
        if any(key != number and (alone or theirs) for slot in slots for key, theirs in slot.items()):
            return abi.BUSY
        for slot in slots:
            slot[number] = alone
        return abi.OK

    def forget(self, number: int) -> None:
        self.levels.pop(number, None)
        self.unmap(number)
