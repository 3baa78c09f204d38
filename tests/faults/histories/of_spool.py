"""Histories of the agent's spool: objects that arrive side by side, are finished, given up or let go of, and ends.

As those of the node (`of_node`); an acknowledgement is what `finish` returns, upon which a scanner forgets its image.
"""

from pathlib import Path

import trio
from trio.testing import MockClock

from agent.spool import Spool, SpooledId, open_spool
from tests.faults.histories.filesystem import walk
from tests.faults.histories.journal import Journal, require
from tests.faults.histories.running import Stopped
from tests.faults.histories.world import HOME, World
from transfer.errors import FascicleError, FullError, StorageError

FOLDER = Path(HOME) / "agent" / "spool"
LENGTHS = (16, 500, 4096, 9000, 30_000)


class SpoolHistory:
    def __init__(self, world: World) -> None:
        self.world, self.machine, self.rng = world, world.machine, world.rng
        self.journal = Journal()
        self.sent: dict[str, bytes] = {}
        self.let_go: set[str] = set()  # which may come back after a power cut: they are sent again, and known
        self.tight = False

    def run(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            self._live()
            self._end(power_cut=self.rng.random() < 0.6)
            if self.rng.random() < 0.3:
                self.verify()
        self._end(power_cut=True)
        self.verify()

    def _end(self, *, power_cut: bool) -> None:
        self.machine.stop()
        self.machine.end_faults()
        self.machine.start_again(power_cut=power_cut)
        self.machine.disk.room_bytes = 1 << 30
        self.tight = False
        self.world.note(f"START after a {'power cut' if power_cut else 'kill'}")
        self.journal.counts["power cuts" if power_cut else "kills"] += 1

    def _live(self) -> None:
        rng, machine = self.rng, self.machine
        machine.draw_faults()
        if rng.random() < 0.2:
            self.tight, machine.disk.room_bytes = True, rng.randint(0, 100_000)
        if rng.random() < 0.8:
            machine.stop_at = machine.calls + int(2 ** rng.uniform(2, 8))
        try:
            trio.run(self._work, clock=MockClock(autojump_threshold=0))
        except* Stopped:
            pass

    def _excused(self, error: FascicleError) -> None:
        require(
            isinstance(error, StorageError | FullError) and (self.machine.faults > 0 or self.tight),
            f"failed for no reason: {error!r}",
        )

    async def _work(self) -> None:
        for _ in range(3):  # what failed, or ended well, begins again
            try:
                async with open_spool(FOLDER, reserve_bytes=0) as spool, trio.open_nursery() as senders:
                    for _ in range(self.rng.randint(1, 4)):
                        senders.start_soon(self._send, spool)
            except FascicleError as error:
                self._excused(error)

    async def _send(self, spool: Spool) -> None:
        for _ in range(self.rng.randint(1, 5)):
            try:
                await self.rng.choice((self._receive, self._receive, self._receive, self._let_go))(spool)
            except FascicleError as error:
                self._excused(error)
            self.machine.now_s += self.rng.choice((-5.0, 0.0, 1.0))  # clocks step back, too

    async def _receive(self, spool: Spool) -> None:
        incoming = await spool.begin("history")
        data = self.rng.randbytes(self.rng.choice(LENGTHS))
        self.sent[incoming.name] = data
        self.world.note(f"RECEIVE {incoming.name} {len(data)}")
        length = self.rng.choice((700, 5000, 30_000))
        with trio.move_on_after(self.rng.choice((0.0, 1.0, 1.0, 1.0))):  # the association may break
            try:
                for at in range(0, len(data), length):
                    await incoming.write(data[at : at + length])
                if self.rng.random() < 0.9:
                    self._acknowledge(await incoming.finish(), data)
            finally:
                await incoming.abandon()

    def _acknowledge(self, spooled: SpooledId, data: bytes) -> None:
        self.world.note(f"FINISHED {spooled.name}")
        require(spooled.size_bytes == len(data), f"{spooled.name} has another length")
        self.journal.acknowledge(spooled.name)

    async def _let_go(self, spool: Spool) -> None:
        if self.journal.acknowledged:
            name = self.rng.choice(sorted(self.journal.acknowledged))
            self.world.note(f"LET GO {name}")
            self.journal.forget(name)
            await spool.remove([name])

    def verify(self) -> None:
        """Judge everything, with no faults."""
        self.world.note("VERIFY")
        try:
            found = trio.run(self._scan)
        except FascicleError as error:  # of the last life, and told once
            self._excused(error)
            found = trio.run(self._scan)
        ready = {
            path.rpartition("/")[2]: bytes(file.data)
            for path, file in walk(self.machine.disk.root)
            if "/ready/" in path
        }
        require(self.journal.acknowledged <= ready.keys(), "an acknowledged object is gone")
        require([each.name for each in found] == sorted(ready), "not everything is found again")
        for name, data in ready.items():
            require(data == self.sent[name], f"{name} is not what was sent")
        require(len(set(ready.values())) == len(ready), "an object is there twice")

    async def _scan(self) -> list[SpooledId]:
        async with open_spool(FOLDER, reserve_bytes=0) as spool:
            return await spool.scan()
