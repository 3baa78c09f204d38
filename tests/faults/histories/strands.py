"""Calls in threads, one at a time: at a system call or a lock another may go first, as the seed decides.

In place of `trio.to_thread.run_sync` and of `threading`'s locks. The trio thread waits while a strand runs, so there is
never more than one at work, and trio's own order is drawn from the seed too: a history runs the same way each time.
"""

import random
from collections.abc import Callable
from threading import Lock, Thread, get_ident
from typing import Any

import trio

from tests.faults.histories.machine import Machine


class _Strand:
    """One thread, used for one call after the other."""

    def __init__(self) -> None:
        self._go, self._back = Lock(), Lock()
        self._go.acquire()
        self._back.acquire()
        self._call: Callable[[], Any] = lambda: None
        self.running = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.thread = Thread(target=self._work, name="strand", daemon=True)
        self.thread.start()

    def begin(self, call: Callable[[], Any]) -> None:
        self._call, self.running, self.error, self.value = call, True, None, None
        self.go_on()

    def go_on(self) -> None:
        """Let it run until it gives way or ends."""
        self._go.release()
        self._back.acquire()

    def give_way(self) -> None:
        self._back.release()
        self._go.acquire()

    def _work(self) -> None:
        while True:
            self._go.acquire()
            try:
                self.value = self._call()
            except BaseException as error:
                self.error = error
            self.running = False
            self._back.release()


class Strands:
    def __init__(self, rng: random.Random, give_way_ratio: float) -> None:
        self._rng, self._ratio = rng, give_way_ratio
        self._at_work: dict[int, _Strand] = {}
        self.machine: Machine | None = None

    async def run_sync(self, call: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        """As `trio.to_thread.run_sync`."""
        await trio.lowlevel.checkpoint()
        if not self._ratio:
            return call(*arguments)
        strand = _idle.pop() if _idle else _Strand()
        identity = strand.thread.ident
        assert identity is not None
        self._at_work[identity] = strand
        strand.begin(lambda: call(*arguments))
        with trio.CancelScope(shield=True):
            while strand.running:
                await trio.lowlevel.checkpoint()
                strand.go_on()
        del self._at_work[identity]
        _idle.append(strand)
        if strand.error is not None:
            raise strand.error
        return strand.value

    def give_way(self) -> None:
        """Perhaps let others go first; called at each system call."""
        if self._at_work and self._rng.random() < self._ratio:
            self._wait()

    def _wait(self) -> None:
        strand = self._at_work.get(get_ident())
        if strand is not None:
            strand.give_way()

    def lock(self) -> "TurnLock":
        return TurnLock(self, again=False)

    def lock_again(self) -> "TurnLock":
        return TurnLock(self, again=True)

    def wait_for_lock(self) -> None:
        assert get_ident() in self._at_work, "a lock is waited for where nobody can let go of it"
        assert self.machine is not None
        self._wait()
        self.machine.go_on()


_idle: list[_Strand] = []


class TurnLock:
    """As threading.Lock, or RLock where the owner may take it `again`."""

    def __init__(self, strands: Strands, *, again: bool) -> None:
        self._strands, self._again = strands, again
        self._owner, self._depth = 0, 0

    def __enter__(self) -> None:
        me = get_ident()
        while self._depth and self._owner != me:
            self._strands.wait_for_lock()
        assert self._again or not self._depth, "a lock is taken twice"
        self._owner, self._depth = me, self._depth + 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
