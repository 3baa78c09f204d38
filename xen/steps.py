"""One step of a plan, carried out: calls of the back end in threads, questions to the gateway in between.

Before each step the lock is checked, so that a run that was overtaken does nothing more. Refuses to do: order and
repetition (`xen.apply`), choosing steps (`xen.plan`).
"""

from collections.abc import Awaitable, Callable
from functools import partial, singledispatchmethod
from typing import Final, ParamSpec, TypeVar

import trio

from transfer import log
from transfer.errors import BusyError, ConflictError, NotStoredError, UnreachableError
from xen import firstboot
from xen.actions import Action, Await, Begin, Configure, Destroy, DestroyDisk, Leave, Make, Retire, Start
from xen.backend import Backend, Clone, Lock, Shape
from xen.cloud import ABSENT, Cloud, Node
from xen.firstboot import FirstBoot
from xen.observed import Machine, Power, Stage
from xen.poolfile import PoolFile

P = ParamSpec("P")
R = TypeVar("R")
logger = log.get_logger()
ASK_EVERY_S: Final = 1.0  # the gateway has no call that waits for a node


class Steps:
    """Carries out actions at one pool and one gateway, for as long as the lock is held."""

    def __init__(self, file: PoolFile, backend: Backend, cloud: Cloud, lock: Lock, *, waits: bool = True) -> None:
        self._file = file
        self._drain_timeout_s = file.watch.drain_timeout_s if waits else 0.0
        self._wanted = file.wanted()
        self._backend = backend
        self._cloud = cloud
        self._lock = lock

    async def do(self, action: Action) -> None:
        """Carry one action out; done before, it does nothing.

        Raises:
            FascicleError: what the back end or the gateway raised.
        """
        await self._call(self._lock.check)
        started_s = trio.current_time()
        await self._do(action)
        seconds = round(trio.current_time() - started_s, 3)
        logger.info("pool_step", step=type(action).__name__.lower(), machine=action.name, seconds=seconds)

    @singledispatchmethod
    async def _do(self, action: Action) -> None:
        raise TypeError(action)

    @_do.register
    async def _(self, action: Destroy) -> None:
        if action.revoke:
            await self._cloud.revoke(action.name)
        await self._call(self._backend.destroy, action.machine_id)

    @_do.register
    async def _(self, action: DestroyDisk) -> None:
        await self._call(self._backend.destroy_disk, action.disk_id)

    @_do.register
    async def _(self, action: Make) -> None:
        wish = Clone(
            name=action.name,
            number=action.number,
            template_id=action.template_id,
            storage_id=action.storage_id,
            host_id=action.host_id,
            full_copy=self._wanted.full_copy,
            revision=self._wanted.revision,
        )
        await self._call(self._backend.clone, wish)

    @_do.register
    async def _(self, action: Configure) -> None:
        shape = Shape(
            vcpus=self._wanted.vcpus,
            memory_bytes=self._wanted.memory_bytes,
            disk_bytes=self._wanted.disk_bytes,
            network_id=action.network_id,
            group=f"{self._wanted.cluster} {self._wanted.prefix}".strip(" -"),
        )
        await self._call(self._backend.configure, action.name, shape)

    @_do.register
    async def _(self, action: Begin) -> None:
        host_id = await self._call(self._backend.choose_host, action.name, action.host_ids)
        host = self._file.host(action.number)
        boot = FirstBoot(
            name=action.name,
            token=await self._cloud.invite(action.name, [host]),
            host=host,
            port=self._file.nodes.port,
            failure_domain=host_id,
            address=self._file.address(action.number),
            router=self._file.addresses.router,
            name_servers=tuple(self._file.addresses.name_servers),
        )
        await self._call(self._backend.attach_first_boot, action.name, firstboot.image(boot))
        await self._call(self._lock.check)
        await self._call(self._backend.start, action.name, host_id)

    @_do.register
    async def _(self, action: Start) -> None:
        host_id = await self._call(self._backend.choose_host, action.name, action.host_ids)
        await self._call(self._backend.start, action.name, host_id)
        await self._cloud.tell_domain(action.name, host_id)

    @_do.register
    async def _(self, action: Await) -> None:
        times = self._file.watch
        waiting = partial(self._backend.wait_for_address, action.name, times.address_timeout_s)
        await trio.to_thread.run_sync(waiting, abandon_on_cancel=True)  # a question, which nobody misses
        await self._until_live(action.name, times.enrol_timeout_s)
        machine = await self._machine(action.name)
        await self._cloud.tell_domain(action.name, machine.host_id)
        if machine.stage == Stage.BEGUN:
            await self._call(self._backend.mark, action.name, Stage.SERVING)

    @_do.register
    async def _(self, action: Leave) -> None:
        known = (await self._node(action.name)).state != "absent"
        if not known and (await self._machine(action.name)).stage == Stage.BEGUN:
            await self._give_up(action.name)
            return
        await self._call(self._backend.mark, action.name, Stage.LEAVING)
        if known:
            await self._cloud.drain(action.name)

    @_do.register
    async def _(self, action: Retire) -> None:
        try:
            machine = await self._machine(action.name)
        except NotStoredError:
            return
        if machine.stage != Stage.CONDEMNED:
            await self._until_needless(action.name)
        if machine.power == Power.UNKNOWN:
            raise ConflictError(f"{action.name} cannot be removed: its host is gone, and it may still be running there")
        await self._call(self._backend.mark, action.name, Stage.CONDEMNED)
        await self._call(self._backend.shut_down, action.name, self._file.watch.shut_down_timeout_s)
        await self._cloud.revoke(action.name)
        await self._call(self._backend.destroy, action.machine_id)

    async def _machine(self, name: str) -> Machine:
        return await self._call(self._backend.machine, name)

    async def _node(self, name: str) -> Node:
        return (await self._cloud.nodes()).get(name, ABSENT)

    async def _until_live(self, name: str, timeout_s: float) -> None:
        """Wait until the node serves. One that does not enrol in time is given up: its invitation has ended too."""

        async def serves() -> bool:
            return (await self._node(name)).state == "live"

        if not await _within(timeout_s, serves):
            machine = await self._machine(name)
            if machine.stage == Stage.BEGUN and (await self._node(name)).state == "absent":
                await self._give_up(name)
            raise UnreachableError(f"{name} runs, but its node did not serve within {timeout_s:.0f} s; see its console")

    async def _give_up(self, name: str) -> None:
        """Condemn a node that never enrolled; its invitation first, so that it cannot do so any more."""
        await self._cloud.revoke(name)
        await self._call(self._backend.mark, name, Stage.CONDEMNED)

    async def _until_needless(self, name: str) -> None:
        """Wait until nothing is lost by removing the node. Never goes on without the gateway's word."""

        async def needless() -> bool:
            return not await self._cloud.needed_objects(name)

        if (await self._node(name)).state == "absent":
            raise ConflictError(
                f"the gateway does not know {name}, which may hold objects; bring its register back, or remove the "
                "machine by hand"
            )
        if not await _within(self._drain_timeout_s, needless):
            raise BusyError(f"{name} still holds the last replica of something; it stays until that is copied")

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking call in a thread. It is waited for also when cancelled: half a call is nobody's."""
        return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


async def _within(timeout_s: float, done: Callable[[], Awaitable[bool]]) -> bool:
    """Ask until the answer is yes, at least once; False when `timeout_s` is over."""
    deadline_s = trio.current_time() + timeout_s
    while not await done():
        if trio.current_time() + ASK_EVERY_S > deadline_s:
            return False
        await trio.sleep(ASK_EVERY_S)
    return True
