"""What is wanted is judged by ratios within one round, and nothing measured is never enough."""

from typing import Any

import pytest

from experiments import wanted
from experiments.results import new
from experiments.wanted import Want
from transfer.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("fascicle <= 0.1 x ftp", Want("fascicle", 0.1, "ftp")),
        ("fascicle-raw <= 1.05 x best", Want("fascicle-raw", 1.05, "best")),
        ("fascicle >= 1500 objects/s", Want("fascicle", 1500)),
        ("fascicle-raw node <= 150 MB", Want("fascicle-raw", 150, process="node")),
    ],
)
def test_wishes_are_read(text: str, found: Want) -> None:
    assert wanted.parse(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "fascicle", "fascicle < 2 x ftp", "fascicle <= x ftp", "fascicle <= 1..2 x ftp", "fascicle disk <= 9 MB"],
)
def test_what_is_no_wish_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--want"):
        wanted.parse(text)


def run(peer: str, nodes: int, seconds: float, number: int) -> dict[str, Any]:
    return {"profile": "tanet", "peer": peer, "nodes": nodes, "run": number, "seconds": seconds, "objects": 60}


def results(text: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    peers = ["fascicle", "fascicle-f2", "fascicle-f8", "ftp"]
    options = {"wanted": [text], "peers": peers, "profiles": [{"name": "tanet"}]}
    return new({}, options, []) | {"links": {"tanet": {}}, "runs": runs}


def judged(text: str, runs: list[dict[str, Any]]) -> list[tuple[int, str, list[float], bool]]:
    found = wanted.judge(results(text, runs))
    return [(one.case.nodes, one.unit, [round(value, 3) for value in one.found], one.met) for one in found]


def test_ratios_are_those_of_each_round() -> None:
    runs = [run("fascicle", 5, seconds, number) for number, seconds in enumerate((1.0, 4.0, 9.0))]
    runs += [run("ftp", 0, seconds, number) for number, seconds in enumerate((20.0, 20.0))]
    assert judged("fascicle <= 0.1 x ftp", runs) == [(5, "x ftp", [0.05, 0.2], False)]
    assert judged("fascicle <= 0.2 x ftp", runs) == [(5, "x ftp", [0.05, 0.2], True)]
    [verdict] = wanted.judge(results("fascicle <= 0.2 x ftp", runs))
    assert verdict.text() == (
        "tanet, fascicle, 5 nodes: wanted fascicle <= 0.2 x ftp; found 0.125 x ftp (0.05 to 0.2, 2 rounds): met"
    )


def test_the_floor_is_the_links_own() -> None:
    runs = [run("fascicle", 5, 4.2, 0) | {"floor_s": 4.0}, run("fascicle", 30, 4.3, 0) | {"floor_s": 4.0}]
    assert judged("fascicle <= 1.05 x floor", runs) == [(5, "x floor", [1.05], True), (30, "x floor", [1.075], False)]
    unshaped = [run("fascicle", 5, 4.2, 0) | {"floor_s": 0.0}]
    assert judged("fascicle <= 1.05 x floor", unshaped) == [(5, "x floor", [], False)]


def test_numbers_of_nodes_are_compared_with_each_other() -> None:
    runs = [run("fascicle", nodes, seconds, 0) for nodes, seconds in ((1, 4.0), (5, 4.0), (30, 4.4))]
    runs += [run("ftp", 0, 4.0, 0), run("fascicle-f2", 5, 1.0, 0)]
    assert judged("fascicle <= 1.05 x n5", runs) == [(1, "x n5", [1.0], True), (30, "x n5", [1.1], False)]
    assert judged("fascicle <= 1.05 x n5", runs[1:2]) == [(0, "", [], False)]


def test_the_best_is_the_one_that_leaves_least() -> None:
    runs = [run("fascicle", 1, 5.0, 0), run("fascicle", 5, 4.0, 0), run("fascicle-f2", 5, 8.0, 0)]
    runs += [run("fascicle-f2", 1, 4.0, 0), run("fascicle-f8", 5, 3.9, 0)]
    assert judged("fascicle <= 1.05 x best", runs) == [
        (1, "x fascicle-f2", [1.25], False),
        (5, "x fascicle-f8", [1.026], True),
    ]


def test_objects_a_second() -> None:
    runs = [run("fascicle", 5, seconds, number) for number, seconds in enumerate((2.0, 3.0, 10.0))]
    assert judged("fascicle >= 20 objects/s", runs) == [(5, "objects/s", [30.0, 20.0, 6.0], True)]


def test_memory_is_judged_by_the_worst_round() -> None:
    peaks = [{"client_peak_bytes": 1e6 * client, "server_process_peak_bytes": 9e7} for client in (100, 100, 301)]
    runs = [run("fascicle", 5, 1.0, number) | peak for number, peak in enumerate(peaks)]
    assert judged("fascicle client <= 300 MB", runs) == [(5, "MB", [100.0, 100.0, 301.0], False)]
    assert judged("fascicle node <= 90 MB", runs) == [(5, "MB", [90.0, 90.0, 90.0], True)]


@pytest.mark.parametrize("text", ["fascicle <= 9 x ftp", "fascicle-f2 >= 1 objects/s"])
def test_nothing_measured_is_not_enough(text: str) -> None:
    [(_, _, found, met)] = judged(text, [run("fascicle", 5, 1.0, 0), run("ftp", 0, 1.0, 1)])
    assert (found, met) == ([], False)
