"""What a sender does to a link that is not its own alone: its cap, the background, what bound it, what it remembers."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments.links import open_link
from experiments.profiles import parse_own
from experiments.scenario import Place, open_place
from experiments.workload import Workload
from tests.experiments.test_links import needs_namespaces

pytestmark = [needs_namespaces, pytest.mark.cluster]
RATE_BIT_S = 40e6
IMAGES = Workload("generated", side=640)  # 820 KB each
RAW = ("--encoding", "raw")
DAY_S, TO_NOON_S = 86_400, 6.0
YIELDED_S, BACK_S = 2.5, 14.0  # from when another comes; from when it has gone


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    with open_link(parse_own("40M", "20ms", "")) as link, open_place(link, folder, nodes=2) as opened:
        yield opened


def write(place: Place, name: str, objects: int) -> tuple[Path, float]:
    """Write new images; return their folder, and the seconds that the link needs for them."""
    files = IMAGES.write(place.folder / name, objects=objects, seed=int.from_bytes(name.encode()) % 1_000_000)
    return place.folder / name, place.link.profile.floor_s(sum(file.stat().st_size for file in files))


def rate_bit_s(timeline: Sequence[dict[str, Any]], begin_s: float, end_s: float) -> float:
    """Return at which rate bytes went between two times of a transfer."""
    moments = [moment for moment in timeline if begin_s <= moment["t_s"] <= end_s]
    first, last = moments[0], moments[-1]
    return float(8 * (last["wire_bytes"] - first["wire_bytes"]) / (last["t_s"] - first["t_s"]))


def test_the_link_bounds_a_transfer_and_the_next_one_remembers_it(place: Place) -> None:
    folder, floor_s = write(place, "first", 40)  # enough that its start is a small part
    memory = place.folder / "state" / "fascicle" / "paths.json"
    memory.unlink(missing_ok=True)
    first = place.run_command("send", folder, *RAW)
    assert first["bound_by"] == "link"
    assert first["seconds"] < 1.25 * floor_s
    [(path, facts)] = json.loads(memory.read_text())["paths"].items()
    assert facts["goodput_bytes_s"] * 8 == pytest.approx(RATE_BIT_S, rel=0.2)
    assert max(moment["flows"] for moment in first["timeline"]) < 21
    memory.write_text(json.dumps({"version": 1, "paths": {path: facts | {"flows": 21}}}))
    folder, floor_s = write(place, "second", 20)
    second = place.run_command("send", folder, *RAW)
    assert max(moment["flows"] for moment in second["timeline"]) == 21
    assert second["seconds"] < 1.5 * floor_s


def test_a_cap_is_kept_and_named(place: Place) -> None:
    folder, _ = write(place, "capped", 6)
    sent = place.run_command("send", folder, *RAW, "--rate", "8Mbit/s")
    assert sent["bound_by"] == "rate"
    assert 8 * sent["bytes"] / sent["seconds"] == pytest.approx(8e6, rel=0.12)
    assert rate_bit_s(sent["timeline"], 1.0, sent["seconds"] / 2) == pytest.approx(8e6, rel=0.2)


def test_a_timetable_turns_in_the_middle_of_a_transfer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = write(place, "timetable", 24)
    noon_s = round(time.time() + TO_NOON_S)
    monkeypatch.setenv("TZ", zone_where_it_is_noon(noon_s))
    sent = place.run_command("send", folder, *RAW, "--rate", "00:00-12:00 8Mbit/s, else 24Mbit/s")
    turned_s = noon_s - (time.time() - sent["seconds"])
    assert 2.0 < turned_s < sent["seconds"] - 2.0
    assert rate_bit_s(sent["timeline"], 1.0, turned_s - 0.5) == pytest.approx(8e6, rel=0.2)
    assert rate_bit_s(sent["timeline"], turned_s + 0.7, sent["seconds"] - 0.3) == pytest.approx(24e6, rel=0.2)
    assert sent["bound_by"] == "rate"


def zone_where_it_is_noon(moment_s: int) -> str:
    """Return a time zone (POSIX's `TZ`, which counts seconds to the west) in which it is 12:00:00 at `moment_s`."""
    west_s = (moment_s - DAY_S // 2) % DAY_S
    sign = "-" if west_s > DAY_S // 2 else ""
    west_s = DAY_S - west_s if sign else west_s
    return f"HERE{sign}{west_s // 3600}:{west_s // 60 % 60:02}:{west_s % 60:02}"


@pytest.mark.timeout(300)
def test_the_background_yields_and_comes_back(place: Place) -> None:
    """The other sender is another user's: it has no gate with ours, so that only the link tells of it."""
    other = Place(place.link, place.cluster, place.folder / "other")
    other.folder.mkdir()
    bulk, _ = write(place, "bulk", 60)
    urgent, floor_s = write(other, "urgent", 20)
    flags = (*RAW, "--congestion", "cubic")  # it fills the queue, as most of the world's traffic
    with place.open_command("send", bulk, *flags, "--priority", "background") as sender:
        begin_s = time.monotonic()
        time.sleep(6.0)
        came_s = time.monotonic() - begin_s
        beside = other.run_command("send", urgent, *flags)
        went_s = time.monotonic() - begin_s
        background = place.summary(sender)
    timeline = background["timeline"]
    alone = rate_bit_s(timeline, 3.5, came_s)
    yielding = rate_bit_s(timeline, came_s + YIELDED_S, went_s)
    left_bytes = timeline[-1]["wire_bytes"] - max(each["wire_bytes"] for each in timeline if each["t_s"] <= went_s)
    assert background["bound_by"] == "rate"
    assert alone > 0.4 * RATE_BIT_S
    assert yielding < 0.1 * RATE_BIT_S
    assert background["seconds"] - went_s < BACK_S + 8 * left_bytes / (0.4 * RATE_BIT_S)
    assert beside["seconds"] < 1.35 * floor_s
