"""A pool in one view for people and programs: hosts, nodes, and what is wrong. Refuses to do: asking anybody."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from xen.cloud import ABSENT, Node
from xen.observed import GIB, Pool


def table(pool: Pool, nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Return hosts and nodes as plain values."""
    names = {host.host_id: host.name for host in pool.hosts}
    count = Counter(machine.host_id for machine in pool.machines)
    return {
        "hosts": [
            {
                "name": host.name,
                "state": "gone" if not host.alive else "open" if host.open else "closed",
                "nodes": count[host.host_id],
                "memory_free_bytes": host.memory_free_bytes,
            }
            for host in sorted(pool.hosts, key=lambda each: each.name)
        ],
        "nodes": [
            {
                "name": machine.name,
                "stage": machine.stage.value,
                "power": machine.power.value,
                "host": names.get(machine.host_id, ""),
                "address": machine.address,
                "node": nodes.get(machine.name, ABSENT).state,
                "draining": nodes.get(machine.name, ABSENT).draining,
                "revision": machine.revision,
            }
            for machine in sorted(pool.machines, key=lambda each: (each.number, each.machine_id))
        ],
        "loose_disks": [disk.name for disk in pool.loose_disks],
    }


def room_line(free_ratio: float | None, *, count_max: int, free_share_min: float) -> str:
    """Return how much room there is, and what is done when it gets short."""
    free = "how much of the nodes' room is free is not known"
    if free_ratio is not None:
        free = f"{free_ratio * 100:.1f} % of the nodes' room is free"
    if not count_max:
        return f"{free}; no node is added by itself (`growth.count_max`)"
    return f"{free}; below {free_share_min * 100:g} % the reconciler adds nodes, up to {count_max} in all"


def lines(shown: Mapping[str, Any]) -> list[str]:
    """Return the table for people."""
    hosts = [
        f"host {each['name']}  {each['state']}  {each['nodes']} nodes  {each['memory_free_bytes'] / GIB:.1f} GiB free"
        for each in shown["hosts"]
    ]
    nodes = [
        f"{each['name']}  {each['stage']}  {each['power']} on {each['host'] or '-'}  {each['address'] or '-'}  "
        f"node {each['node']}{', draining' if each['draining'] else ''}"
        for each in shown["nodes"]
    ]
    return [*hosts, *nodes, *(f"disk {each}: no machine has it" for each in shown["loose_disks"])]
