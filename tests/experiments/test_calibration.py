"""What a probe found is judged by the profile: silence on a good link, words on a bad one."""

import socket
import threading
from typing import Any

import pytest

from experiments.calibration import complaints, plan
from experiments.probe import FRAME_BYTES, Meter, counting, send_datagrams
from experiments.profiles import PROFILES, parse_own

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


@pytest.mark.parametrize("rate", ["64k", "64k/100G", "1M", "30M", "200M", "100G"])
def test_a_slow_link_is_probed_with_less(rate: str) -> None:
    planned = plan(parse_own(rate, "2s", ""))
    for how in (how for part in ("loss", "rate") for how in planned[part].values()):
        assert how["packets"] >= 40
        assert how["packets"] * (how["size"] + FRAME_BYTES) * 8 / how["rate_bit_s"] < 6
    assert planned["echo"]["times"] * planned["echo"]["wait_s"] < 40


def test_what_an_echo_takes_of_a_slow_rate_is_no_delay() -> None:
    slow = parse_own("64k", "20ms", "")
    assert complaints(slow, {"round_trip_ms": 20 + 2 * 47 * 8 / 64}) == []
    assert complaints(slow, {"round_trip_ms": 50}) == ["round trip 50.0 ms, not 20 ms"]


def test_a_meter_ends_with_its_block_though_nothing_arrives() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        before = threading.active_count()
        with counting(udp) as meter:
            udp.sendto(b"C" + bytes(99), udp.getsockname())
            assert meter.report()["packets"] == 1
        assert threading.active_count() == before


def test_a_meter_counts_counts_whole_frames_after_the_first() -> None:
    class Sink:
        def sendto(self, data: bytes, peer: Any) -> None:
            meter.count(len(data))

    meter = Meter(Sink())  # type: ignore[arg-type]  # stands for a socket
    send_datagrams(Sink(), ("", 0), packets=50, size=1472, rate_bit_s=20e6)  # type: ignore[arg-type]  # as above
    assert (meter.packets, meter.size) == (50, 49 * 1514)
