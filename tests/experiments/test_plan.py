"""The command line and what is made of it: orders that alternate, seeds that repeat, nonsense that is refused."""

import json
import os
from pathlib import Path

import pytest

from experiments import results
from experiments.campaign import Case, cases, order
from experiments.command import make_plan, report
from experiments.peers import registry
from fascicle.arguments import make_parser
from fascicle.cli import main
from transfer.errors import SettingsError


def plan(*words: object):
    return make_plan(make_parser().parse_args(["experiment", "run", *map(str, words)]))[0]


def test_every_peer_with_every_node_count_that_it_has(tmp_path: Path) -> None:
    chosen = plan("adsl", "own", "--rate", "1M", "--peers", "fascicle,ftp", "--objects", "9,adsl=3", "--out", tmp_path)
    assert [(case.peer.name, case.nodes) for case in cases(chosen.peers, chosen.nodes)] == [
        ("fascicle", 1),
        ("fascicle", 5),
        ("fascicle", 30),
        ("ftp", 0),
    ]
    assert chosen.objects == {"": 9, "adsl": 3}


def test_ours_with_each_number_of_flows_is_a_peer_of_its_own(tmp_path: Path) -> None:
    chosen = plan("lan", "--peers", "ftp,fascicle-raw", "--flows", "auto,2,16", "--out", tmp_path)
    names = ["fascicle-raw", "fascicle-raw-f2", "fascicle-raw-f16", "ftp"]
    assert [peer.name for peer in chosen.peers] == names
    assert [getattr(peer, "flows", None) for peer in chosen.peers] == [0, 2, 16, None]


def test_without_tls_is_a_peer_that_only_its_name_brings(tmp_path: Path) -> None:
    every = [peer.name for peer in plan("lan", "--out", tmp_path).peers]
    assert "fascicle-raw" in every
    assert "fascicle-raw-plain" not in every
    [peer] = plan("lan", "--peers", "fascicle-raw-plain", "--out", tmp_path).peers
    assert getattr(peer, "plain", None) is True


def test_the_order_alternates_and_forgets_nobody() -> None:
    every = [Case(peer, 0) for peer in registry.ALL[:3]]
    orders = [[case.peer.name for case in order(every, run)] for run in range(4)]
    assert orders[0] == ["fascicle", "fascicle-raw", "ftp"]
    assert orders[1] == orders[0][::-1]
    assert orders[2] == ["fascicle-raw", "ftp", "fascicle"]
    assert all(sorted(one) == sorted(orders[0]) for one in orders)


@pytest.mark.parametrize(
    "words",
    [
        ["moon"],
        ["lan", "--nodes", "0"],
        ["lan", "--nodes", "1,1"],
        ["lan", "--nodes", "five"],
        ["lan", "--runs", "0"],
        ["lan", "--peers", "ftp,rsync"],
        ["lan", "--flows", "0"],
        ["lan", "--flows", "auto,auto"],
        ["lan", "--want", "fascicle < ftp"],
        ["lan", "--objects", "adsl=3"],
        ["lan", "--objects", "-1"],
        ["lan", "--objects", "2,3"],
        ["lan", "--rate", "1M"],
        ["own"],
        ["lan", "--workload", "/no/such/folder"],
        ["lan", "--workload", "x" * 300],
    ],
)
def test_nonsense_ends_with_code_2_before_anything_is_done(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", "run", *words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("fascicle: ")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_run_as_asked_for_leaves_no_results_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for _ in range(2):
        assert main(["experiment", "run", "lan", "--peers", "fascicle", "--out", str(tmp_path / "out")]) == 2
        assert "namespaces need root" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_name_that_no_system_takes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "run", "loop", "--peers", "fascicle", "--out", "x" * 300]) == 2
    assert "File name too long" in capsys.readouterr().err


def test_results_that_lack_what_is_in_all_of_ours_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results.new({}, {}, []) | {"runs": [{"profile": "lan"}]}))
    assert main(["experiment", "report", str(tmp_path)]) == 2
    assert "not results of ours" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "run", "loop", "--peers", "fascicle", "--out", "/proc/results"]) == 1
    assert capsys.readouterr().err.startswith("fascicle: /proc/results: results cannot be written: ")


def test_earlier_results_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SettingsError, match="has results already"):
        plan("lan", "--peers", "fascicle", "--out", tmp_path)


@pytest.mark.parametrize("text", ["{}", "[", '{"format": 99}', '{"format": 2}', "[]"])
def test_what_is_not_results_is_not_reported(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(SettingsError, match=r"results\.json"):
        report(make_parser().parse_args(["experiment", "report", str(tmp_path)]))


def test_a_peer_whose_program_is_absent_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.peers.base.PATH", "/nowhere")
    peers, skipped = registry.choose(["fascicle", "lftp", "orthanc"])
    assert [peer.name for peer in peers] == ["fascicle"]
    assert [entry["peer"] for entry in skipped] == ["lftp", "orthanc"]
    assert skipped[0]["reason"] == "not installed: vsftpd (Debian: vsftpd), lftp (Debian: lftp)"
