"""Is the link what its profile says? Plans a probe, runs it over the link, judges what it found.

Refuses to do: measuring on a link that is not what it should be; that is an error which says expected and found.
"""

import json
import math
import subprocess
import sys
from typing import Any, Final

from experiments.links import Link
from experiments.namespaces import LinkError
from experiments.probe import FRAME_BYTES
from experiments.profiles import Profile, rate_text

DATAGRAM_RATE_MAX_BIT_S: Final = 200e6  # what Python sends and receives in datagrams with a processor to spare
RATE_S, STREAM_S, RATE_PACKETS_MIN = 0.5, 0.6, 40
LOSS_PACKETS, LOSS_PACKETS_FEW, LOSS_PACKET_BYTES = 3000, 1000, 64
LOSS_RATE_MAX_BIT_S: Final = 4e6
LOSS_S_MAX: Final = 5.0  # on slow links fewer packets tell the loss
ECHOES, ECHO_BYTES = 9, 5
RATE_BELOW, RATE_ABOVE = 0.08, 0.04
TIMER_MS: Final = 2.0
STRAY_LOSS_RATIO: Final = 0.001
TRIES: Final = 3
PROBE_S_MAX: Final = 120.0
Figures = dict[str, Any]


def plan(profile: Profile) -> Figures:
    """Return what to probe on a link of `profile`."""
    echo = {"times": ECHOES, "wait_s": profile.delay_ms / 1e3 * 1.5 + 1}
    found: Figures = {"echo": echo, "loss": {}, "rate": {}}
    packets = LOSS_PACKETS if profile.loss_ratio else LOSS_PACKETS_FEW
    for way, rate_bit_s in (("up", profile.up_bit_s), ("down", profile.down_bit_s)):
        half = min(rate_bit_s / 2 or math.inf, LOSS_RATE_MAX_BIT_S)
        count = min(packets, round(half * LOSS_S_MAX / 8 / (LOSS_PACKET_BYTES + FRAME_BYTES)))
        found["loss"][way] = {"packets": count, "size": LOSS_PACKET_BYTES, "rate_bit_s": half}
        if 0 < rate_bit_s <= DATAGRAM_RATE_MAX_BIT_S:
            count = max(RATE_PACKETS_MIN, round(rate_bit_s * 1.3 * RATE_S / 8 / 1514))
            found["rate"][way] = {"packets": count, "size": 1472, "rate_bit_s": rate_bit_s * 1.3}
    if not found["rate"] and not profile.loss_ratio:
        found["stream_s"] = STREAM_S
    return found


def complaints(profile: Profile, figures: Figures) -> list[str]:
    """Return what about `figures` is not as `profile` says, each in words; best none."""
    found: list[str] = []
    sent = plan(profile)["loss"]
    ways = (("up", profile.up_bit_s), ("down", profile.down_bit_s))
    trip, itself = figures["round_trip_ms"], sum((ECHO_BYTES + FRAME_BYTES) * 8e3 / rate for _, rate in ways if rate)
    if not profile.delay_ms * 0.98 <= trip <= profile.delay_ms * 1.1 + itself + TIMER_MS:
        found.append(f"round trip {trip:.1f} ms, not {profile.delay_ms:g} ms")
    for way, rate_bit_s in ways:
        measured = figures.get(f"{way}_bit_s")
        if rate_bit_s and measured is not None and not 1 - RATE_BELOW <= measured / rate_bit_s <= 1 + RATE_ABOVE:
            found.append(f"{rate_text(round(measured, -3))} {way}, not {rate_text(rate_bit_s)}")
        loss = figures.get(f"{way}_loss_ratio", 0.0)
        deviation = math.sqrt(profile.loss_ratio * (1 - profile.loss_ratio) / sent[way]["packets"])
        if abs(loss - profile.loss_ratio) > 4 * deviation + STRAY_LOSS_RATIO:
            found.append(f"{loss:.2%} of packets lost {way}, not {profile.loss_ratio:.2%}")
    return found


def calibrate(link: Link, tries: int = TRIES) -> Figures:
    """Probe `link` and return what was found, with the number of tries that it took.

    Raises:
        LinkError: it is not what its profile says, `tries` times in a row, or the probe failed.
    """
    wrong: list[str] = []
    for attempt in range(1, tries + 1):
        figures = _probe(link)
        if not (wrong := complaints(link.profile, figures)):
            return figures | {"tries": attempt}
    raise LinkError(
        f"the link {link.profile.name!r} ({link.profile.text()}, made by {link.method}) is not what it should be: "
        f"{'; '.join(wrong)}. Is the machine busy with something else?"
    )


def _probe(link: Link) -> Figures:
    probe = (sys.executable, "-m", "experiments.probe")
    server = subprocess.Popen(
        link.server.command(*probe, "serve", link.server.address), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        done = subprocess.run(
            link.client.command(*probe, "measure", link.server.address, port),
            input=json.dumps(plan(link.profile)),
            capture_output=True,
            text=True,
            timeout=PROBE_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LinkError(f"the probe of {link.profile.name!r} did not end within {error.timeout} s") from error
    finally:
        server.kill()
        server.communicate()
    if done.returncode:
        raise LinkError(f"the probe of {link.profile.name!r} failed: {done.stderr.strip()[-500:]}")
    figures: Figures = json.loads(done.stdout)
    return figures
