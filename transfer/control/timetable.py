"""When how much bandwidth may be used: a timetable as text, and the rate that it gives at a local time. Pure.

    mon-fri 07:00-19:00 20Mbit/s, sat 08:00-12:00 50Mbit/s, else unlimited

Entries are tried in order and the first that fits counts; `else` is last, and unlimited when it is left out. Days:
`mon-fri`, `sat`, `daily`; left out, every day. Hours end before their second time; `22:00-06:00` runs past midnight
and belongs to the day on which it begins. Rates: `20Mbit/s` (also bit, kbit, Gbit: powers of 1000), `unlimited`.
"""

import datetime
import re
from dataclasses import dataclass
from typing import Final

from transfer.control.rate import UNLIMITED
from transfer.errors import SettingsError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
UNITS: Final = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
RATE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?([kmg]?)bit/s", re.IGNORECASE)
HOURS: Final = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
RATE_BITS_S_MIN: Final = 8_000.0
ENTRIES_MAX: Final = 64
EXAMPLE: Final = "such as `mon-fri 07:00-19:00 20Mbit/s, else unlimited`"
DAY_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: on `days` (0: Monday), from `begin` until before `end` (minutes of the day)."""

    days: frozenset[int]
    begin: int
    end: int
    rate_bytes_s: float

    def fits(self, weekday: int, minute: int) -> bool:
        """Tell whether the entry counts at a minute of a day."""
        if self.begin < self.end:
            return weekday in self.days and self.begin <= minute < self.end
        return (weekday in self.days and minute >= self.begin) or ((weekday - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Timetable:
    """Entries in order, and the rate where none fits (bytes a second)."""

    entries: tuple[Entry, ...] = ()
    otherwise_bytes_s: float = UNLIMITED

    def rate_bytes_s(self, at: datetime.datetime) -> float:
        """Return the rate at a local time."""
        minute = at.hour * 60 + at.minute
        for entry in self.entries:
            if entry.fits(at.weekday(), minute):
                return entry.rate_bytes_s
        return self.otherwise_bytes_s


def parse(text: str) -> Timetable:
    """Read a timetable, or a single rate.

    Raises:
        SettingsError: names the entry and what is wrong with it.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > ENTRIES_MAX:
        raise SettingsError(f"a timetable has at most {ENTRIES_MAX} entries")
    *entries, last = parts
    if len(parts) == 1 and " " not in last.replace(" bit", "bit"):
        return Timetable(otherwise_bytes_s=parse_rate(last))
    if last.startswith("else "):
        return Timetable(tuple(map(_entry, entries)), parse_rate(last.removeprefix("else ").strip()))
    return Timetable(tuple(map(_entry, parts)))


def parse_rate(text: str) -> float:
    """Read a rate in bits, and return it in bytes a second.

    Raises:
        SettingsError: no rate, or one of less than 8 kbit/s.
    """
    if text == "unlimited":
        return UNLIMITED
    match = RATE.fullmatch(text)
    if match is None:
        raise SettingsError(f"`{text}` is not a rate; write `20Mbit/s`, `512kbit/s` or `unlimited`")
    bits_s = float(match[1]) * UNITS[match[2].lower()]
    if bits_s < RATE_BITS_S_MIN:
        raise SettingsError(f"`{text}` is too slow to send anything; at least 8kbit/s")
    return bits_s / 8


def _entry(text: str) -> Entry:
    words = text.split()
    if len(words) == 2:
        words = ["daily", *words]
    if len(words) != 3:
        raise SettingsError(f"`{text}` is not an entry of a timetable, {EXAMPLE}")
    days, hours, rate = words
    begin, end = _hours(hours)
    return Entry(_days(days), begin, end, parse_rate(rate))


def _days(text: str) -> frozenset[int]:
    if text == "daily":
        return frozenset(range(7))
    first, _, last = text.lower().partition("-")
    if first not in DAYS or (last or first) not in DAYS:
        raise SettingsError(f"`{text}` is not a day or a range of days ({', '.join(DAYS)}, daily)")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return frozenset((begin + step) % 7 for step in range((end - begin) % 7 + 1))


def _hours(text: str) -> tuple[int, int]:
    match = HOURS.fullmatch(text)
    if match is None:
        raise SettingsError(f"`{text}` is not a span of hours, such as `07:00-19:00`")
    begin, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if max(int(match[2]), int(match[4])) > 59 or begin >= DAY_MINUTES or end > DAY_MINUTES or begin == end:
        raise SettingsError(f"`{text}` is not a span of hours within a day")
    return begin, end
