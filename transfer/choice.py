"""Which encoding is best now, for one kind of image: a measured optimum (design section 6). Pure; time is a number.

An encoding of ratio r at a speed of s, with w workers on a link that takes g, moves the lesser of

    g * r                         all encoded: the link is full, and denser is better
    g + w * s * (1 - 1/r)         as much encoded as the workers manage, the rest raw in the room that is left

original bytes a second. Both are known from what was measured on this machine for this kind of image, and until then
from the table below, scaled by how the kind's other encodings do. One encoding follows another only when it is better
by `HYSTERESIS_RATIO`. Refuses to do: encoding, measuring time.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Final

RAW: Final = "raw"
HYSTERESIS_RATIO: Final = 1.06
SMOOTH: Final = 0.25  # of each new measurement
STALE_S: Final = 30.0  # what was measured longer ago counts no more than the table
FAILURES_MAX: Final = 3  # in a row; then the encoding is not tried for the kind again
SCALE_MIN, SCALE_MAX = 0.1, 3.0
SLOW_RATIO: Final = 20.0  # an encoder that takes so many times longer than expected is given up
SLOW_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Fact:
    """How an encoding does: original bytes a second for one worker, original bytes for each stored one."""

    speed_bytes_s: float
    ratio: float
    at_s: float = float("-inf")


# Head CT and MR on one core (docs/encodings.md): where nothing has been measured yet.
IMAGES: Final = {
    "shuffle-lz4": Fact(270e6, 2.1),
    "gradient-zstd": Fact(170e6, 3.2),
    "jxl-1": Fact(100e6, 3.1),
    "htj2k": Fact(80e6, 3.5),
    "jpegls": Fact(45e6, 3.7),
    "jxl-3": Fact(15e6, 4.2),
    "jxl-7": Fact(1.4e6, 4.4),
}
OTHERS: Final = {"zstd": Fact(300e6, 2.0)}  # reports, structures: what holds no pixels


@dataclass(slots=True)
class _Known:
    """What is known of one kind."""

    table: dict[str, Fact]
    measured: dict[str, Fact] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    current: str = ""


class Choice:
    """The choices of one sender, by kind of image; any hashable value is a kind."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._kinds: dict[Hashable, _Known] = {}

    def pick(self, kind: Hashable, goodput_bytes_s: float, now_s: float, *, is_image: bool = True) -> str:
        """Return the best encoding for an object of `kind` on a link that takes `goodput_bytes_s`."""
        known = self._known(kind, is_image)
        scores = {name: self._score(fact, goodput_bytes_s) for name, fact in self._facts(known, now_s).items()}
        scores[RAW] = goodput_bytes_s
        best = max(scores, key=lambda name: scores[name])
        if known.current not in scores or scores[best] > HYSTERESIS_RATIO * scores[known.current]:
            known.current = best
        return known.current

    def learn(self, kind: Hashable, name: str, size_bytes: int, stored_bytes: int, seconds: float, now_s: float) -> None:
        """Take in how an encoding did; `seconds` as they passed, so that a busy machine counts."""
        known = self._kinds.get(kind)
        if known is None or not size_bytes:
            return
        new = Fact(size_bytes / max(seconds, 1e-6), size_bytes / max(stored_bytes, 1), now_s)
        old = known.measured.get(name)
        if old is not None and now_s - old.at_s < STALE_S:
            new = replace(
                new,
                speed_bytes_s=old.speed_bytes_s + SMOOTH * (new.speed_bytes_s - old.speed_bytes_s),
                ratio=old.ratio + SMOOTH * (new.ratio - old.ratio),
            )
        known.measured[name] = new
        known.failures.pop(name, None)

    def failed(self, kind: Hashable, name: str) -> None:
        """Note that an encoder failed, was too slow, or gained nothing."""
        if kind in self._kinds:
            failures = self._kinds[kind].failures
            failures[name] = failures.get(name, 0) + 1

    def seconds_max(self, kind: Hashable, name: str, size_bytes: int) -> float:
        """Return after how long an encoder is too slow to go on."""
        known = self._kinds.get(kind)
        fact = known and (known.measured.get(name) or known.table.get(name))
        return SLOW_S + SLOW_RATIO * size_bytes / fact.speed_bytes_s if fact else SLOW_S

    def ratio(self, kind: Hashable, now_s: float) -> float:
        """Return the ratio expected of the present choice for `kind`."""
        known = self._kinds.get(kind)
        fact = known and self._facts(known, now_s).get(known.current)
        return fact.ratio if fact else 1.0

    def _known(self, kind: Hashable, is_image: bool) -> _Known:
        if kind not in self._kinds:
            self._kinds[kind] = _Known(IMAGES if is_image else OTHERS)
        return self._kinds[kind]

    def _facts(self, known: _Known, now_s: float) -> dict[str, Fact]:
        """Return measured facts, and the table's scaled by them; without what has failed."""
        fresh = {name: fact for name, fact in known.measured.items() if now_s - fact.at_s < STALE_S}
        speed = _scale([fact.speed_bytes_s / known.table[name].speed_bytes_s for name, fact in fresh.items()])
        gain = _scale([(fact.ratio - 1) / (known.table[name].ratio - 1) for name, fact in fresh.items()])
        facts = {
            name: fresh.get(name) or Fact(fact.speed_bytes_s * speed, 1 + (fact.ratio - 1) * gain)
            for name, fact in known.table.items()
        }
        return {name: fact for name, fact in facts.items() if known.failures.get(name, 0) < FAILURES_MAX}

    def _score(self, fact: Fact, goodput_bytes_s: float) -> float:
        ratio = max(fact.ratio, 1.0)
        return min(goodput_bytes_s * ratio, goodput_bytes_s + self._workers * fact.speed_bytes_s * (1 - 1 / ratio))


def _scale(found: list[float]) -> float:
    return min(max(sum(found) / len(found), SCALE_MIN), SCALE_MAX) if found else 1.0
