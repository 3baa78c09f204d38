"""A child in which one write takes only its first half, as the system may at any time.

Made in the child, in the functions of the module os that our code writes by: strace can claim a short write, but not
make one. Refuses to do: judging.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from tests.faults.real.forks import Say, Work
from tests.faults.real.traced import Ended, Point, run

WRITES: Final = ("pwrite", "pwritev", "write")


def count_writes(work: Work) -> Counter[str]:
    """Return how often `work` calls each function of `WRITES`."""

    def counted(say: Say) -> None:
        for name in WRITES:
            setattr(os, name, _telling(name, say))
        work(say)

    return Counter(message["write"] for message in run(counted).messages if "write" in message)


def _telling(name: str, say: Say) -> Callable[..., int]:
    call = getattr(os, name)

    def telling(*arguments: Any) -> int:
        say({"write": name})
        return call(*arguments)

    return telling


def run_shortened(work: Work, point: Point) -> Ended:
    """Run `work` with the write of `point` cut short."""

    def shortened(say: Say) -> None:
        setattr(os, point.call, _shorter(point, say))
        work(say)

    ended = run(shortened)
    return ended._replace(fired={"shortened": True} in ended.messages)


def _shorter(point: Point, say: Say) -> Callable[..., int]:
    call = getattr(os, point.call)
    seen = 0

    def shorter(descriptor: int, data: Any, *rest: int) -> int:
        nonlocal seen
        seen += 1
        if seen == point.number:
            say({"shortened": True})
            data = [_half(data[0])] if isinstance(data, list) else _half(data)
        return call(descriptor, data, *rest)

    return shorter


def _half(data: Any) -> memoryview:
    view = memoryview(data).cast("B")
    half = view.nbytes // 2
    aligned = half // 4096 * 4096  # or a direct write is one that no system makes
    return view[: aligned or max(1, half)]
