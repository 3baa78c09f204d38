"""10 000 idle connections at each port, and what the honest ones still get done.

For each of node, gateway and C-STORE port: the honest work alone, then while the crowd comes and stands there, then
alone again. Wanted: 80 % of what was done without the crowd, no failure, less than 256 MB more memory, nothing lost.
Refuses to do: the crowd (`tests.load.crowd`), the work (`tests.load.honest`).
"""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from tests.dimse.peer import associate_request
from tests.load.honest import Done, Sender, Storer, Work, keep_at_it
from tests.load.parts import Part, Parts, open_parts
from tests.load.results import Results, percentiles
from tests.load.verdict import judge_objects, judge_spool

GROWTH_BYTES_MAX: Final = 256 << 20
GOODPUT_MIN: Final = 0.8
WORKERS: Final = 4
ROOT: Final = Path(__file__).parents[2]


class Target(NamedTuple):
    """A port and what comes to it."""

    part: Part
    port: int
    kinds: str
    request: bytes
    is_tls: bool
    work: Work


def run(results: Results, folder: Path, *, count: int, window_s: float, ports: str) -> None:
    """Measure at `ports`; `window_s` seconds of work without the crowd, twice, and with it."""
    with open_parts(folder) as parts:
        kept = Done()
        stored = Done()
        for name, target in _targets(parts).items():
            if name not in ports.split("+"):
                continue
            measured = trio.run(partial(_measure, parts, target, count, window_s, f"{results.seed} {name}"))
            figures, done = measured
            results.figures[name] = figures
            (stored if name == "agent" else kept).add(done)
            results.want(figures["goodput_ratio"] >= GOODPUT_MIN, f"{name}: goodput {figures['goodput_ratio']:.2f}")
            results.want(not done.failures, f"{name}: {len(done.failures)} failed: {done.failures[:3]}")
            results.want(figures["growth_bytes"] < GROWTH_BYTES_MAX, f"{name}: grew {figures['growth_bytes']} bytes")
            results.want(figures["crowd"]["opened"] >= count, f"{name}: only {figures['crowd']['opened']} connected")
        results.figures["objects"] = len(kept.names)
        results.problems += judge_objects(parts, kept.names)
        results.figures["instances"] = len(stored.names)
        results.problems += judge_spool(parts, stored.names)


def _targets(parts: Parts) -> dict[str, Target]:
    send = Sender(parts, objects=8, size_bytes=64 << 10, flows=2)
    store = Storer(parts.agent_port, instances=8, size_bytes=64 << 10)
    every = "tcp,hello,tcp,silent,hello,tcp,half,hello"  # handshakes cost processors, most of all here
    half_request = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "
    return {
        "node": Target(parts.node, parts.node_port, every, b"\0\0\1\0\1", True, send),
        "gateway": Target(parts.gateway, parts.gateway_port, every, half_request, True, send),
        "agent": Target(parts.agent, parts.agent_port, "tcp,half", associate_request()[:40], False, store),
    }


async def _measure(parts: Parts, target: Target, count: int, window_s: float, seed: str) -> tuple[dict[str, Any], Done]:
    before = await _work_for(target, window_s, f"{seed} before")
    resident = target.part.resident_bytes()
    with _crowd(parts, target, count) as crowd:
        full = trio.Event()
        coming = Done()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_wait_full, crowd, full)
            coming = await keep_at_it(target.work, WORKERS, full, f"{seed} coming")
        during = await _work_for(target, window_s, f"{seed} during")
        answer, _ = await trio.to_thread.run_sync(crowd.communicate)
    peak = target.part.resident_bytes("VmHWM")
    after = await _work_for(target, window_s, f"{seed} after")
    alone = Done()
    for done in (before, after):
        alone.add(done)
    figures = {
        "crowd": json.loads(answer),
        "goodput_ratio": round(during.bytes_s / alone.bytes_s, 3),
        "goodput_ratio_while_it_came": round(coming.bytes_s / alone.bytes_s, 3),
        "came_s": round(coming.seconds, 1),
        "alone_bytes_s": round(alone.bytes_s),
        "crowded_bytes_s": round(during.bytes_s),
        "alone_s": percentiles(alone.took_s),
        "crowded_s": percentiles(during.took_s),
        "growth_bytes": max(0, peak - resident),
    }
    for done in (coming, during):
        alone.add(done)
    return figures, alone


async def _work_for(target: Target, seconds: float, seed: str) -> Done:
    over = trio.Event()
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await trio.sleep(seconds)
            over.set()

        nursery.start_soon(end)
        return await keep_at_it(target.work, WORKERS, over, seed)


def _crowd(parts: Parts, target: Target, count: int) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "tests.load.crowd", str(target.port), "--count", str(count)]
    words += ["--kinds", target.kinds, "--request", target.request.hex()]
    words += ["--credentials", str(parts.credentials)] if target.is_tls else []
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


async def _wait_full(crowd: "subprocess.Popen[str]", full: trio.Event) -> None:
    assert crowd.stdout is not None
    line = await trio.to_thread.run_sync(crowd.stdout.readline)
    assert line == "full\n", line
    full.set()
