"""Timetables: what is meant at which hour, and what is wrong with those that mean nothing."""

import datetime

import pytest

from transfer.control.rate import UNLIMITED
from transfer.control.timetable import Timetable, parse, parse_rate
from transfer.errors import SettingsError

MONDAY = datetime.date(2024, 1, 1)


def at(days: int, hour: int, minute: int = 0) -> datetime.datetime:
    return datetime.datetime.combine(MONDAY + datetime.timedelta(days), datetime.time(hour, minute))


def test_working_hours() -> None:
    table = parse("mon-fri 07:00-19:00 20Mbit/s, else unlimited")
    assert table.rate_bytes_s(at(0, 7)) == 2_500_000
    assert table.rate_bytes_s(at(4, 18, 59)) == 2_500_000
    assert (
        table.rate_bytes_s(at(0, 6, 59)) == table.rate_bytes_s(at(0, 19)) == table.rate_bytes_s(at(5, 12)) == UNLIMITED
    )


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    table = parse("fri 22:00-06:00 unlimited, 00:00-24:00 1Mbit/s")
    assert table.rate_bytes_s(at(4, 23)) == table.rate_bytes_s(at(5, 5, 59)) == UNLIMITED
    assert table.rate_bytes_s(at(4, 5)) == table.rate_bytes_s(at(5, 6)) == table.rate_bytes_s(at(5, 23)) == 125_000


def test_the_first_entry_that_fits_counts_and_else_is_the_rest() -> None:
    table = parse("sat-mon 08:00-12:00 512kbit/s, daily 08:00-18:00 8Mbit/s, else 2.5Gbit/s")
    rates = [table.rate_bytes_s(at(day, 9)) for day in range(7)]
    assert rates == [64_000, 1e6, 1e6, 1e6, 1e6, 64_000, 64_000]
    assert table.rate_bytes_s(at(0, 19)) == 2.5e9 / 8


def test_a_single_rate_is_a_timetable() -> None:
    assert parse("2Mbit/s") == Timetable(otherwise_bytes_s=250_000)
    assert parse("unlimited") == Timetable()
    assert parse_rate("9600bit/s") == 1200


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "``"),
        ("20Mbps", "20Mbps"),
        ("4kbit/s", "too slow"),
        ("mon-fri 07:00-19:00", "07:00-19:00"),
        ("mo 07:00-19:00 1Mbit/s", "`mo`"),
        ("mon-fry 07:00-19:00 1Mbit/s", "mon-fry"),
        ("mon 7-19 1Mbit/s", "`7-19`"),
        ("mon 07:00-25:00 1Mbit/s", "07:00-25:00"),
        ("mon 07:60-08:00 1Mbit/s", "07:60-08:00"),
        ("mon 07:00-07:00 1Mbit/s", "07:00-07:00"),
        ("mon tue 07:00-08:00 1Mbit/s", "not an entry"),
        ("else unlimited, mon 07:00-08:00 1Mbit/s", "else"),
        ("mon 07:00-08:00 0Mbit/s", "too slow"),
        (",".join(["mon 07:00-08:00 1Mbit/s"] * 65), "64"),
    ],
)
def test_what_means_nothing_is_named(text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse(text)
