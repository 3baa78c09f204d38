"""Ten times the offered load: at a node's flows, at the gateway's connections, at the C-STORE port's associations.

The same work is offered twice, over and over for a while: by as many at once as there are places, and by ten times as
many, who begin all at once, find no place, hear when to come back, and come. Wanted: 80 % of the goodput, all that was
begun done in the end, less than 256 MB more memory, nothing lost. Goodput is counted when it has settled, before the
last ones end. The agent's spool stays: deliveries would be more work the more was taken. Refuses to do: the work
(`tests.load.honest`, `tests.load.callers`).
"""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from nodes import credit
from tests.load.callers import Caller
from tests.load.honest import Done, Sender, Storer, Work, offer_for
from tests.load.parts import Part, Parts, open_parts
from tests.load.results import Results, percentiles
from tests.load.verdict import judge_objects, judge_spool

TIMES: Final = 10
FLOWS: Final = 4  # of one sender
SLICES: Final = 24  # a short CT series: with much less, most of the time goes into handshakes, and into those who send
SLICE_BYTES: Final = 512 << 10
CALLERS: Final = 32
ASSOCIATIONS: Final = 32
GROWTH_BYTES_MAX: Final = 256 << 20
GOODPUT_MIN: Final = 0.8


class Target(NamedTuple):
    """What is offered too much: so many find a place `at_once`.

    `refused` reads how many were refused so far, `judge` what is wrong with what was acknowledged.
    """

    part: Part
    at_once: int
    work: Work
    refused: Callable[[], float]
    judge: Callable[[set[str]], list[str]]


def run(results: Results, folder: Path, *, repeats: int, window_s: float, ports: str) -> None:
    """Measure each of `ports` `repeats` times, the two ways in turn, and take the median ratio."""
    with open_parts(folder, delivers=False, connections_max=CALLERS, party_connections_max=CALLERS) as parts:
        for name, target in _targets(parts).items():
            if name not in ports.split("+"):
                continue
            figures, done = _measure(target, repeats, window_s, f"{results.seed} {name}")
            results.figures[name] = figures | {"acknowledged": len(done.names)}
            results.want(figures["goodput_ratio"] >= GOODPUT_MIN, f"{name}: goodput {figures['goodput_ratio']:.2f}")
            results.want(not done.failures, f"{name}: {len(done.failures)} failed: {done.failures[:3]}")
            results.want(figures["growth_bytes"] < GROWTH_BYTES_MAX, f"{name}: grew {figures['growth_bytes']} bytes")
            results.want(figures["refused"] > 0, f"{name}: nobody was refused, so there was no overload")
            results.problems += target.judge(done.names)


def _targets(parts: Parts) -> dict[str, Target]:
    storer = Storer(parts.agent_port, instances=2, size_bytes=64 << 10)
    return {
        "node": Target(
            parts.node,
            credit.FLOWS_MAX // FLOWS,
            Sender(parts, objects=SLICES, size_bytes=SLICE_BYTES, flows=FLOWS),
            partial(_count, parts.node_metrics, 'fascicle_node_refusals_total{code="busy"}'),
            partial(judge_objects, parts),
        ),
        "gateway": Target(
            parts.gateway,
            CALLERS - 4,  # two of its places are for nodes, and the agent has its own
            Caller(parts),
            partial(_count, parts.gateway_metrics, "fascicle_gateway_refused_total"),
            partial(judge_objects, parts, deep=False),
        ),
        "agent": Target(parts.agent, ASSOCIATIONS, storer, storer.rejected, partial(judge_spool, parts)),
    }


def _measure(target: Target, repeats: int, window_s: float, seed: str) -> tuple[dict[str, Any], Done]:
    sized, over = Done(), Done()
    count = target.at_once * TIMES
    resident_bytes, refused = 0, 0.0
    ratios = []
    for repeat in range(repeats):
        alone = trio.run(offer_for, target.work, target.at_once, window_s, f"{seed} {repeat} sized")
        resident_bytes = resident_bytes or target.part.resident_bytes("VmHWM")
        before = target.refused()
        crowded = trio.run(offer_for, target.work, count, window_s, f"{seed} {repeat} over")
        refused += target.refused() - before
        ratios.append(round(crowded.settled_bytes_s / alone.settled_bytes_s, 3))
        sized.add(alone)
        over.add(crowded)
    figures = {
        "places": target.at_once,
        "offered": count,
        "goodput_ratio": statistics.median(ratios),
        "goodput_ratios": ratios,
        "sized_bytes_s": round(sized.settled_bytes_s),
        "overloaded_bytes_s": round(over.settled_bytes_s),
        "sized_s": percentiles(sized.took_s),
        "overloaded_s": percentiles(over.took_s),
        "refused": refused,
        "growth_bytes": max(0, target.part.resident_bytes("VmHWM") - resident_bytes),
    }
    sized.add(over)
    return figures, sized


def _count(read: Callable[[], str], name: str) -> float:
    found = [line.rpartition(" ")[2] for line in read().splitlines() if line.startswith(name)]
    return float(found[0]) if found else 0.0
