"""Single nodes and hosts taken out of service: drain of named nodes, a host emptied, snapshots, all of it removed.

Refuses to do: keeping the number of nodes (`xen.apply`, `xen.reconcile`).
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import trio

from transfer.errors import ConflictError, FascicleError, FullError, NotStoredError
from xen.actions import Action, Destroy, DestroyDisk, Leave, Plan, Retire
from xen.apply import View
from xen.backend import Backend, Lock
from xen.cloud import Cloud
from xen.observed import Host, Machine, Pool, Power, Stage
from xen.spread import Spread, storage_of
from xen.wanted import Wanted


def plan_drain(pool: Pool, names: Iterable[str]) -> Plan:
    """Return the steps that empty and remove these nodes.

    Raises:
        NotStoredError: there is none of that name.
    """
    found = {each.name: each for each in pool.machines if each.stage != Stage.RAW}
    actions: list[Action] = []
    for name in dict.fromkeys(names):
        if name not in found:
            raise NotStoredError(f"the pool has no node {name}; there are: {', '.join(sorted(found)) or 'none'}")
        actions.append(Leave(name=name, reason="it was asked for"))
        actions.append(Retire(name=name, machine_id=found[name].machine_id))
    return Plan(actions=tuple(sorted(actions, key=lambda each: each.phase)))


def plan_removal(pool: Pool) -> Plan:
    """Return the steps that remove every machine and disk of ours with whatever is on it."""
    machines = [
        Destroy(
            name=each.name,
            machine_id=each.machine_id,
            reason="with all that is on it, as was asked for",
            revoke=each.stage not in (Stage.RAW, Stage.CLONED, Stage.CONFIGURED),
        )
        for each in sorted(pool.machines, key=lambda each: (each.number, each.machine_id))
    ]
    return Plan(actions=(*machines, *(DestroyDisk(name=each.name, disk_id=each.disk_id) for each in pool.loose_disks)))


def find_host(pool: Pool, name: str) -> Host:
    """Return the host of this name or id.

    Raises:
        NotStoredError: there is none, or more than one.
    """
    found = [each for each in pool.hosts if name in (each.name, each.host_id)]
    if len(found) != 1:
        raise NotStoredError(f"the pool has {len(found)} hosts {name}; there are: {_names(pool.hosts)}")
    return found[0]


class Moves(msgspec.Struct, frozen=True):
    """Which machines go where (by name: hosts, the best first), and which cannot."""

    moves: Mapping[str, tuple[str, ...]]
    stay: tuple[str, ...]


def plan_moves(wanted: Wanted, pool: Pool, host: Host) -> Moves:
    """Return where the machines that run on this host can go."""
    others = tuple(msgspec.structs.replace(each, open=False) if each == host else each for each in pool.hosts)
    rest = [each for each in pool.machines if each.host_id != host.host_id]
    spread = Spread(wanted, msgspec.structs.replace(pool, hosts=others), counted=rest, freed=())
    moves: dict[str, tuple[str, ...]] = {}
    stay: list[str] = []
    for machine in sorted(_on(pool, host), key=lambda each: each.number):
        place = spread.take(disk_bytes=0, on_storage=storage_of(machine))
        if place is None:
            stay.append(machine.name)
        else:
            moves[machine.name] = place.host_ids
    return Moves(moves, tuple(stay))


async def free_host(
    wanted: Wanted, view: View, host: Host, *, backend: Backend, cloud: Cloud, lock: Lock
) -> tuple[Sequence[str], Sequence[str]]:
    """Let a host take no more nodes, and move those that run there; return which moved and which could not.

    Raises:
        FascicleError: the pool or the gateway cannot be asked.
    """
    await trio.to_thread.run_sync(lambda: backend.open_host(host.host_id, is_open=False))
    planned = plan_moves(wanted, view.pool, host)
    moved, stay = [], list(planned.stay)
    for name, host_ids in planned.moves.items():
        await trio.to_thread.run_sync(lock.check)
        try:
            target = await trio.to_thread.run_sync(_move, backend, name, host_ids)
        except (ConflictError, FullError):
            stay.append(name)
            continue
        moved.append(name)
        await cloud.tell_domain(name, target)
    return moved, stay


def _move(backend: Backend, name: str, host_ids: Sequence[str]) -> str:
    """Move a machine to the first of these hosts that takes it; raises what the last one said."""
    last: FascicleError = FullError(f"no host takes {name}")
    for host_id in host_ids:
        try:
            backend.move(name, host_id)
        except (ConflictError, FullError) as error:
            last = error
        else:
            return host_id
    raise last


def _on(pool: Pool, host: Host) -> list[Machine]:
    return [each for each in pool.machines if each.host_id == host.host_id and each.power == Power.RUNNING]


def _names(hosts: Iterable[Host]) -> str:
    return ", ".join(sorted(each.name for each in hosts))
