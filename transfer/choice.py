"""The choice of an encoding: a measured optimum per kind of image, not a setting.

With W workers that encode S bytes a second each, at a ratio R, over a link that carries G bytes a second:

    rate = min(W * S, G * R)                      every object is encoded
    rate = min(G * R, G + W * S * (1 - 1 / R))    what the workers do not manage goes raw: the link is never idle

in bytes of original a second; the encoding with the highest rate is taken. Speeds and ratios begin with a built-in
table and are learnt, with old samples forgotten. Speeds are per second of a processor, and the share of one that
workers get is learnt from all together: so a moment when a processor was busy is not held against whatever ran then.
What is in use stays in use until another is better by a margin, and for some objects after each change. Now and then
another that could be better is tried. Where neither the link binds nor the processors have time to spare, every
encoding takes from what binds, and objects go raw. Pure: no clock, no threads, no randomness; for one thread. Refuses
to do: encoding, measuring the link.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from transfer.dicom.pixels import Kind
from transfer.encodings.codecs import CODECS

RAW: Final = "raw"
LADDER: Final = (RAW, "zstd", *CODECS)
MARGIN_RATIO: Final = 1.08
FAR_RATIO: Final = 1.15  # so much better is better at once: at the start nothing is known of the link
DWELL_OBJECTS: Final = 32
PROBE_OBJECTS: Final = 64
PROBE_FIRST_OBJECTS: Final = 8  # while there is one of which only the table tells
PROBE_RATE_RATIO: Final = 0.5  # of the best rate: what is further off is not worth a try
SLOW_RATIO: Final = 8.0
SLOW_S: Final = 0.25  # a short delay is the machine's
GIVE_UP_RATIO: Final = 20.0  # of the expected time: then the object goes as it is
GIVE_UP_S: Final = 2.0
PROBE_SPEED_RATIO: Final = 0.25
BARRED_OBJECTS: Final = 512
SHARE_S: Final = 0.01  # of encoding on a processor that nothing else wants, as long as nothing is known
FORGET_RATIO: Final = 0.97  # a sample counts half after 23 others
PRIOR_RATIO: Final = 0.1  # the table counts as a tenth of an object
SPARE_RATIO: Final = 0.75  # workers that get less of a processor take it from others, who would be faster with it
WORTH_RATIO: Final = 1.03  # what makes objects less smaller than this is not worth the processor
KINDS_MAX: Final = 256
_MB: Final = 1e6


class Prior(NamedTuple):
    """Ratio, and MB of original a second on one core, before anything has been measured."""

    ratio: float
    speed_mb_s: float


# Design, section 6, on real images; measured on a busy machine, so lower bounds. `zstd` and `raw` are ours.
_CROPPED_CT: Final = {
    "zstd": Prior(1.7, 150), "shuffle-lz4": Prior(1.82, 384), "gradient-pack": Prior(2.3, 600),
    "gradient-zstd": Prior(2.28, 172),
    "jxl-1": Prior(2.37, 80), "htj2k": Prior(2.35, 69), "jpegls": Prior(2.49, 34),
    "jxl-3": Prior(2.57, 11), "jxl-7": Prior(2.61, 1.0),
}  # fmt: skip
_HEAD_CT: Final = {
    "zstd": Prior(2.3, 150), "shuffle-lz4": Prior(2.27, 271), "gradient-pack": Prior(3.8, 600),
    "gradient-zstd": Prior(3.97, 177),
    "jxl-1": Prior(3.72, 155), "htj2k": Prior(4.19, 86), "jpegls": Prior(4.50, 49),
    "jxl-3": Prior(5.22, 18), "jxl-7": Prior(5.39, 1.4),
}  # fmt: skip
_MR: Final = {
    "zstd": Prior(1.7, 150), "shuffle-lz4": Prior(1.87, 298), "gradient-pack": Prior(2.35, 600),
    "gradient-zstd": Prior(2.55, 123),
    "jxl-1": Prior(2.52, 53), "htj2k": Prior(2.64, 58), "jpegls": Prior(2.67, 34),
    "jxl-3": Prior(3.12, 10), "jxl-7": Prior(3.18, 1.4),
}  # fmt: skip
_PRIORS: Final = {"CT": _HEAD_CT, "MR": _MR}
_ANY_BYTES: Final = {"zstd": Prior(1.2, 150)}  # no image: what it holds is not known


@dataclass(slots=True)
class Estimate:
    """What is known of one encoding on one kind of image: decaying sums over samples."""

    original_bytes: float
    stored_bytes: float
    seconds: float
    measured: bool = False
    asked_for: int = 0  # how many objects of the kind had been chosen for when it was used last
    barred_until: float = 0

    @property
    def ratio(self) -> float:
        """Original over stored bytes."""
        return self.original_bytes / self.stored_bytes

    @property
    def speed_bytes_s(self) -> float:
        """Original bytes that one worker encodes in a second."""
        return self.original_bytes / self.seconds

    def note(self, original_bytes: int, stored_bytes: int, seconds: float) -> None:
        """Take a sample."""
        if not self.measured:
            self.measured = True
            self._weigh(original_bytes * PRIOR_RATIO / self.original_bytes)
        self.original_bytes = self.original_bytes * FORGET_RATIO + original_bytes
        self.stored_bytes = self.stored_bytes * FORGET_RATIO + max(1, stored_bytes)
        self.seconds = self.seconds * FORGET_RATIO + max(1e-6, seconds)

    def _weigh(self, weight: float) -> None:
        self.original_bytes *= weight
        self.stored_bytes *= weight
        self.seconds *= weight


@dataclass(slots=True)
class _State:
    """One kind of image."""

    estimates: dict[str, Estimate]
    current: str = ""
    changed_at: int = 0
    objects: int = 0

    def change(self, name: str) -> None:
        """Use another from here on."""
        if name != self.current:
            self.current, self.changed_at = name, self.objects


def rate_bytes_s(estimate: Estimate, *, workers: float, goodput_bytes_s: float, fill_with_raw: bool) -> float:
    """Return how many bytes of original a second arrive; see the module."""
    encoded = workers * estimate.speed_bytes_s
    linked = goodput_bytes_s * estimate.ratio
    if not fill_with_raw:
        return min(encoded, linked)
    return min(linked, goodput_bytes_s + encoded * (1 - 1 / estimate.ratio))


class Choice:
    """Chooses for one path, from `names` (any of `LADDER`), with `workers` that encode at a time."""

    def __init__(self, workers: int, *, names: Sequence[str] = LADDER, fill_with_raw: bool = True) -> None:
        self._workers, self._fill_with_raw = max(1, workers), fill_with_raw
        self._names = tuple(names)
        self._states: dict[Kind | str, _State] = {}
        self._processor_s = self._elapsed_s = SHARE_S  # decaying sums over all encodings

    def choose(self, kind: Kind | str, goodput_bytes_s: float, *, is_idle: bool = False) -> str:
        """Return the encoding for the next object of `kind` (a name: no image) at this goodput, above 0, of the link.

        The goodput must be what the link carries while it is busy: what it carried while it waited for encoders
        would make the choice ever denser. `is_idle`: the link seldom has anything waiting.
        """
        state = self._state(kind)
        state.objects += 1
        rates = self.rates(kind, goodput_bytes_s)
        if is_idle and self._processors < SPARE_RATIO * self._workers:
            state.change(RAW)
            chosen = self._probe_processors(state, rates)
        else:
            self._settle(state, rates, max(rates, key=rates.__getitem__))
            chosen = self._probe(state, rates, goodput_bytes_s) or state.current
        if chosen != RAW:
            state.estimates[chosen].asked_for = state.objects
        return chosen

    def choose_alone(self, kind: Kind | str, goodput_bytes_s: float) -> str:
        """Return the encoding for an object that one encoder sends piece by piece, with nothing raw in the gaps.

        A flow does that with a large object, and no other worker helps it.
        """
        rates = self._rates(kind, goodput_bytes_s, workers=min(1.0, self._processors), fill_with_raw=False)
        return max(rates, key=rates.__getitem__)

    def rates(self, kind: Kind | str, goodput_bytes_s: float) -> dict[str, float]:
        """Return the rate of each encoding that may be chosen, in bytes of original a second."""
        return self._rates(kind, goodput_bytes_s, workers=self._processors, fill_with_raw=self._fill_with_raw)

    def _rates(
        self, kind: Kind | str, goodput_bytes_s: float, *, workers: float, fill_with_raw: bool
    ) -> dict[str, float]:
        state = self._state(kind)
        rates = {RAW: goodput_bytes_s}
        for name, estimate in state.estimates.items():
            if estimate.barred_until <= state.objects:
                rates[name] = rate_bytes_s(
                    estimate, workers=workers, goodput_bytes_s=goodput_bytes_s, fill_with_raw=fill_with_raw
                )
        return rates

    @property
    def _processors(self) -> float:
        return self._workers * self._processor_s / self._elapsed_s

    def note(self, kind: Kind | str, encoding: str, original_bytes: int, stored_bytes: int, seconds: float) -> None:
        """Learn from an object: `seconds` of a processor. One that did not become smaller is noted as it is, too.

        What took far longer than it should is not chosen for a while.
        """
        state = self._state(kind)
        estimate = state.estimates.get(encoding)
        if estimate is None:
            return
        expected_s = original_bytes / estimate.speed_bytes_s
        if seconds > SLOW_S + SLOW_RATIO * expected_s:
            estimate.barred_until = state.objects + BARRED_OBJECTS
        estimate.note(original_bytes, stored_bytes, seconds)
        if estimate.ratio < WORTH_RATIO:
            estimate.barred_until = max(estimate.barred_until, state.objects + BARRED_OBJECTS)

    def note_share(self, processor_s: float, elapsed_s: float) -> None:
        """Take in how much of a processor a worker got."""
        self._processor_s = self._processor_s * FORGET_RATIO + processor_s
        self._elapsed_s = self._elapsed_s * FORGET_RATIO + max(elapsed_s, processor_s)

    def ratio(self, kind: Kind | str, encoding: str) -> float:
        """Return the ratio that is expected of `encoding`, 1.0 of raw."""
        estimate = self._state(kind).estimates.get(encoding)
        return estimate.ratio if estimate else 1.0

    def seconds_max(self, kind: Kind | str, encoding: str, original_bytes: int) -> float:
        """Return after how long an encoder is too slow to go on."""
        estimate = self._state(kind).estimates.get(encoding)
        return GIVE_UP_S + GIVE_UP_RATIO * original_bytes / estimate.speed_bytes_s if estimate else GIVE_UP_S

    def set_aside(self, kind: Kind | str, encoding: str) -> None:
        """Do not choose `encoding` for this kind for a while: nothing was gained, or its encoder gave up or erred."""
        state = self._state(kind)
        estimate = state.estimates.get(encoding)
        if estimate is not None:
            estimate.barred_until = state.objects + BARRED_OBJECTS

    def _settle(self, state: _State, rates: dict[str, float], best: str) -> None:
        """Change what is in use if another is better by a margin, which is larger soon after the last change."""
        if rates[best] <= rates[RAW] * MARGIN_RATIO:
            best = RAW  # what costs the processor nothing needs no margin of its own
        held = rates.get(state.current)
        if held is not None:
            settled = state.objects - state.changed_at >= DWELL_OBJECTS
            if rates[best] <= held * (MARGIN_RATIO if settled else FAR_RATIO):
                return
        state.change(best)

    def _probe(self, state: _State, rates: dict[str, float], goodput_bytes_s: float) -> str | None:
        """Every so many objects, return the one longest unused of those that come near the best."""
        if state.objects % PROBE_FIRST_OBJECTS:
            return None
        least = PROBE_RATE_RATIO * max(rates.values())
        near = [
            name
            for name, rate in rates.items()
            if name not in (RAW, state.current)
            and rate >= least
            and self._is_cheap(state, name, goodput_bytes_s, least)
        ]
        if state.objects % PROBE_OBJECTS:
            near = [name for name in near if not state.estimates[name].measured]
        return min(near, key=lambda name: state.estimates[name].asked_for, default=None)

    def _probe_processors(self, state: _State, rates: dict[str, float]) -> str:
        """Every so many objects, return the fastest: how it does tells whether processors have time again."""
        fast = {name: state.estimates[name].speed_bytes_s for name in rates if name != RAW}
        if state.objects % PROBE_OBJECTS or not fast:
            return RAW
        return max(fast, key=fast.__getitem__)

    def _is_cheap(self, state: _State, name: str, goodput_bytes_s: float, least_bytes_s: float) -> bool:
        """Tell whether a try takes little: raw beside it fills the link, and hides how slow an encoder is."""
        tried, held = state.estimates[name], state.estimates.get(state.current)
        if held is None or tried.speed_bytes_s >= PROBE_SPEED_RATIO * held.speed_bytes_s:
            return True
        alone = rate_bytes_s(tried, workers=self._processors, goodput_bytes_s=goodput_bytes_s, fill_with_raw=False)
        return alone >= least_bytes_s

    def _state(self, kind: Kind | str) -> _State:
        if kind not in self._states and len(self._states) >= KINDS_MAX:  # so many are names that somebody made up
            kind = Kind("", kind.bits_allocated, kind.samples, "") if isinstance(kind, Kind) else ""
        if kind not in self._states:
            priors = _PRIORS.get(kind.modality, _CROPPED_CT) if isinstance(kind, Kind) else _ANY_BYTES
            self._states[kind] = _State({name: _begin(priors[name]) for name in self._names if name in priors})
        return self._states[kind]


def _begin(prior: Prior) -> Estimate:
    return Estimate(_MB, _MB / prior.ratio, 1 / prior.speed_mb_s)
