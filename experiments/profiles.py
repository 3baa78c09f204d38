"""Link profiles: what a link between workstation and storage is like, as plain values (S2's links and two of our own).

Refuses to do: making a link (`experiments.links`).
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from transfer.errors import SettingsError

PAYLOAD_SHARE: Final = 0.949  # 1460 bytes of payload in the 1538 that a full frame takes on an Ethernet
QUEUE_MIN_BYTES: Final = 64 << 10
QUEUE_MIN_S: Final = 0.1
OWN: Final = "own"
RATE_MIN_BIT_S, RATE_MAX_BIT_S = 64e3, 100e9
DELAY_MAX_MS: Final = 2_000.0
UNITS: Final = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True)
class Profile:
    """One link. A rate of 0 is no limit; `delay_ms` is the round trip; `loss_ratio` holds in each direction."""

    name: str
    up_bit_s: float = 0.0
    down_bit_s: float = 0.0
    delay_ms: float = 0.0
    loss_ratio: float = 0.0

    @property
    def shaped(self) -> bool:
        """Whether anything of this link is not the machine's own."""
        return bool(self.up_bit_s or self.down_bit_s or self.delay_ms or self.loss_ratio)

    @property
    def rate_only(self) -> bool:
        """Whether a rate is all that this link limits."""
        return self.shaped and not self.delay_ms and not self.loss_ratio

    def floor_s(self, size_bytes: int) -> float:
        """Return the least time that `size_bytes` take upwards in full Ethernet frames; 0 without a rate."""
        return size_bytes * 8 / (self.up_bit_s * PAYLOAD_SHARE) if self.up_bit_s else 0.0

    def text(self) -> str:
        """Return the link in words."""
        if not self.shaped:
            return "unshaped"
        rates = [rate_text(self.up_bit_s)] * bool(self.up_bit_s)
        if self.up_bit_s != self.down_bit_s:
            rates = [f"{rate_text(self.up_bit_s)} up", f"{rate_text(self.down_bit_s)} down"]
        parts = [
            *rates,
            f"{self.delay_ms:g} ms" * bool(self.delay_ms),
            f"{self.loss_ratio * 100:g}% loss" * bool(self.loss_ratio),
        ]
        return ", ".join(part for part in parts if part)


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile("lan", 1e9, 1e9),
        Profile("tanet", 100e6, 100e6, 10.0),
        Profile("adsl", 2e6, 8e6, 40.0),
        Profile("wan", 100e6, 100e6, 80.0, 0.01),
        Profile("loop"),
    )
}


def choose(names: list[str], rate: str, delay: str, loss: str) -> list[Profile]:
    """Return the profiles `names`; `own` is the one that `rate`, `delay` and `loss` ("" without) describe.

    Raises:
        SettingsError: an unknown or repeated name, or an own profile without a value, or values without it.
    """
    own = bool(rate or delay or loss)
    if own and OWN not in names:
        raise SettingsError(f"--rate, --delay and --loss describe a profile of one's own: name it, as {OWN!r}")
    if len(set(names)) != len(names):
        raise SettingsError(f"a profile is named twice: {' '.join(names)}")
    return [parse_own(rate, delay, loss) if name == OWN else _known(name) for name in names]


def parse_own(rate: str, delay: str, loss: str) -> Profile:
    """Return the profile that the texts describe: `10M` or `2M/8M` (up/down), `40ms`, `1%`.

    Raises:
        SettingsError: nothing is described, or a text makes no sense.
    """
    up, _, down = rate.partition("/")
    found = Profile(OWN, delay_ms=_delay_ms(delay), loss_ratio=_loss_ratio(loss))
    if rate:
        found = replace(found, up_bit_s=_rate_bit_s(up, rate), down_bit_s=_rate_bit_s(down or up, rate))
    if not found.shaped:
        raise SettingsError(f"the profile {OWN!r} needs --rate, --delay or --loss; without a limit it is `loop`")
    return found


def queue_bytes(rate_bit_s: float, delay_ms: float) -> int:
    """Return how long a drop-tail queue stands before a link: one bandwidth-delay product, at least 100 ms, 64 KiB."""
    return max(QUEUE_MIN_BYTES, round(rate_bit_s / 8 * max(QUEUE_MIN_S, delay_ms / 1e3)))


def rate_text(bit_s: float) -> str:
    """Return a rate in words."""
    for unit, name in ((1e9, "Gb/s"), (1e6, "Mb/s"), (1e3, "kb/s")):
        if bit_s >= unit:
            return f"{bit_s / unit:g} {name}"
    return f"{bit_s:g} b/s" if bit_s else "no limit"


def _known(name: str) -> Profile:
    if name not in PROFILES:
        raise SettingsError(f"{name!r} is not a profile: {', '.join(PROFILES)}, or {OWN} with --rate, --delay, --loss")
    return PROFILES[name]


def _rate_bit_s(text: str, whole: str) -> float:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kmg]?)(?:bit|b/s|bit/s)?", text.strip().lower())
    rate = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not RATE_MIN_BIT_S <= rate <= RATE_MAX_BIT_S:
        raise SettingsError(f"--rate {whole!r} is not a rate from 64k to 100G bit/s, such as 20M, or 2M/8M up/down")
    return rate


def _delay_ms(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(ms|s)?", text.strip().lower() or "0")
    delay = float(match[1]) * (1e3 if match[2] == "s" else 1.0) if match else -1.0
    if not 0 <= delay <= DELAY_MAX_MS:
        raise SettingsError(f"--delay {text!r} is not a round trip from 0 to 2 s, such as 40ms")
    return delay


def _loss_ratio(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?(%?)", text.strip() or "0")
    loss = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= loss < 0.5:
        raise SettingsError(f"--loss {text!r} is not a share of packets below 50%, such as 1% or 0.01")
    return loss
