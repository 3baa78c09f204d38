"""Link profiles: the paper's numbers, one's own, and what makes no sense."""

import pytest

from experiments.profiles import PROFILES, Profile, choose, parse_own, queue_bytes
from transfer.errors import SettingsError


def test_the_profiles_are_those_of_the_issue() -> None:
    assert PROFILES["lan"] == Profile("lan", 1e9, 1e9)
    assert PROFILES["tanet"] == Profile("tanet", 100e6, 100e6, 10)
    assert PROFILES["adsl"] == Profile("adsl", 2e6, 8e6, 40)
    assert PROFILES["wan"] == Profile("wan", 100e6, 100e6, 80, 0.01)
    assert not PROFILES["loop"].shaped


def test_the_floor_is_the_time_of_full_frames() -> None:
    assert PROFILES["lan"].floor_s(295_280_640) == pytest.approx(2.489, abs=1e-3)
    assert PROFILES["loop"].floor_s(295_280_640) == 0


@pytest.mark.parametrize(
    ("rate", "delay", "loss", "expected"),
    [
        ("20M", "", "", Profile("own", 20e6, 20e6)),
        ("2M/8M", "40ms", "", Profile("own", 2e6, 8e6, 40)),
        ("1.5 gbit", "0.2 s", "1%", Profile("own", 1.5e9, 1.5e9, 200, 0.01)),
        ("", "80", "0.005", Profile("own", 0, 0, 80, 0.005)),
    ],
)
def test_a_profile_of_ones_own(rate: str, delay: str, loss: str, expected: Profile) -> None:
    assert parse_own(rate, delay, loss) == expected


@pytest.mark.parametrize(
    ("rate", "delay", "loss"),
    [
        ("0", "", ""),
        ("-5M", "", ""),
        ("fast", "", ""),
        ("200G", "", ""),
        ("10M/", "-1ms", ""),
        ("nan", "", ""),
        ("10M", "1h", ""),
        ("10M", "11s", ""),
        ("10M", "", "60%"),
        ("10M", "", "-1"),
        ("", "", ""),
        ("", "0", "0"),
    ],
)
def test_nonsense_is_refused_with_its_option(rate: str, delay: str, loss: str) -> None:
    with pytest.raises(SettingsError, match=r"--rate|--delay|--loss"):
        parse_own(rate, delay, loss)


def test_names_are_known_and_named_once() -> None:
    assert [profile.name for profile in choose(["wan", "own"], "1M", "", "")] == ["wan", "own"]
    for names, rate in ((["moon"], ""), (["lan", "lan"], ""), (["lan"], "1M"), (["own"], "")):
        with pytest.raises(SettingsError):
            choose(names, rate, "", "")


def test_a_queue_holds_a_round_trip_or_100_ms() -> None:
    assert queue_bytes(100e6, 10) == 1_250_000
    assert queue_bytes(100e6, 200) == 2_500_000
    assert queue_bytes(1e6, 10) == 64 << 10


def test_links_in_words() -> None:
    assert [profile.text() for profile in PROFILES.values()] == [
        "1 Gb/s",
        "100 Mb/s, 10 ms",
        "2 Mb/s up, 8 Mb/s down, 40 ms",
        "100 Mb/s, 80 ms, 1% loss",
        "unshaped",
    ]
