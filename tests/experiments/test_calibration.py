"""What a probe found is judged by the profile: silence on a good link, words on a bad one."""

from typing import Any

import pytest

from experiments.calibration import complaints, plan
from experiments.probe import Meter, send_datagrams
from experiments.profiles import PROFILES

GOOD = {
    "lan": {"round_trip_ms": 0.1, "up_bit_s": 0.99e9, "down_bit_s": 1.0e9},
    "tanet": {"round_trip_ms": 10.6, "up_bit_s": 100e6, "down_bit_s": 99e6},
    "adsl": {"round_trip_ms": 41.0, "up_bit_s": 2e6, "down_bit_s": 8e6},
    "wan": {
        "round_trip_ms": 81.0,
        "up_bit_s": 98e6,
        "down_bit_s": 99e6,
        "up_loss_ratio": 0.011,
        "down_loss_ratio": 0.008,
    },
    "loop": {"round_trip_ms": 0.1, "up_bit_s": 9e9, "down_bit_s": 9e9},
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_link_that_is_as_it_should_be(name: str) -> None:
    assert complaints(PROFILES[name], GOOD[name]) == []


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("lan", {"up_bit_s": 0.5e9}, "500 Mb/s up, not 1 Gb/s"),
        ("tanet", {"round_trip_ms": 25.0}, "round trip 25.0 ms, not 10 ms"),
        ("tanet", {"round_trip_ms": float("inf")}, "round trip inf ms, not 10 ms"),
        ("adsl", {"down_bit_s": 2e6}, "2 Mb/s down, not 8 Mb/s"),
        ("adsl", {"up_loss_ratio": 0.02}, "2.00% of packets lost up, not 0.00%"),
        ("wan", {"down_loss_ratio": 0.0}, "0.00% of packets lost down, not 1.00%"),
    ],
)
def test_a_link_that_is_not(name: str, wrong: dict[str, float], words: str) -> None:
    assert complaints(PROFILES[name], GOOD[name] | wrong) == [words]


def test_rates_are_probed_by_what_python_can_send() -> None:
    assert "stream_s" in plan(PROFILES["lan"])
    assert "stream_s" not in plan(PROFILES["wan"])
    assert plan(PROFILES["adsl"])["rate"]["up"]["rate_bit_s"] == 2.6e6


def test_a_meter_counts_whole_frames_after_the_first() -> None:
    class Sink:
        def sendto(self, data: bytes, peer: Any) -> None:
            meter.count(len(data))

    meter = Meter(Sink())  # type: ignore[arg-type]  # stands for a socket
    send_datagrams(Sink(), ("", 0), packets=50, size=1472, rate_bit_s=20e6)  # type: ignore[arg-type]  # as above
    assert (meter.packets, meter.size) == (50, 49 * 1514)
