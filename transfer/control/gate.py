"""Lets the more urgent transfers of a process go first: the others pause, in the middle of an object if need be.

A paused transfer keeps its flows and what it has under way, takes nothing new, and goes on where it was. Transfers of
other processes count when `presence` tells of them. Refuses to do: stopping a transfer, sharing out bandwidth.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from transfer.control.priority import Priority, may_go


class Pausable(Protocol):
    """A transfer's work, as far as a gate is concerned."""

    def pause(self, paused: bool) -> None:
        """Stop or go on taking objects and sending shares of them; at once, without waiting."""


class Gate:
    """The transfers that share a path."""

    def __init__(self) -> None:
        self._inside: list[tuple[Priority, Pausable]] = []
        self._outside: frozenset[Priority] = frozenset()

    @contextlib.contextmanager
    def enter(self, priority: Priority, transfer: Pausable) -> Iterator[None]:
        """Count a transfer in while it runs."""
        entry = (priority, transfer)
        self._inside.append(entry)
        self._apply()
        try:
            yield
        finally:
            self._inside.remove(entry)
            self._apply()

    def outside(self, present: Iterable[Priority]) -> None:
        """Take note of what runs in other processes."""
        self._outside = frozenset(present)
        self._apply()

    def _apply(self) -> None:
        present = {priority for priority, _ in self._inside} | self._outside
        for priority, transfer in self._inside:
            transfer.pause(not may_go(priority, present))
