"""From results to table and plots: every figure from its runs, and nothing hidden."""

from pathlib import Path
from typing import Any

import pytest

from experiments import figures, paper
from experiments.profiles import PROFILES
from experiments.report import write_report
from experiments.results import load, new, save
from experiments.table import table


def run(peer: str, nodes: int, seconds: float, number: int, **more: Any) -> dict[str, Any]:
    return {
        "profile": "tanet",
        "peer": peer,
        "nodes": nodes,
        "run": number,
        "order": 0,
        "seed": 1,
        "calibration": {"round_trip_ms": 10.5, "up_bit_s": 100e6, "down_bit_s": 99e6, "up_loss_ratio": 0.0}
        | {"down_loss_ratio": 0.0},
        "objects": 60,
        "bytes": 49_213_440,
        "seconds": seconds,
        "process_s": seconds + 0.4,
        "floor_s": 4.0,
        "client_processor_s": 1.0,
        "server_processor_s": 2.0,
        "link_processor_s": 1.1,
        "client_peak_bytes": 90e6,
        "server_peak_bytes": 300e6,
        "server_process_peak_bytes": 80e6,
        "wire_up_bytes": 51e6,
        "wire_down_bytes": 1e6,
        "retransmitted": 3,
        "goodput": [[0.0, 0], [0.1, 1_000_000], [0.2, 2_250_000]],
        "told": {},
        **more,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    timeline = [{"t_s": 0.5 * n, "bytes": n, "wire_bytes": n, "flows": 4, "encodings": {"raw": n}} for n in range(4)]
    machine = {
        "processors": 2,
        "processor": "A",
        "memory_bytes": 24e9,
        "system": "S",
        "kernel": "6",
        "commit": "c0ffee",
    }
    options = {
        "profiles": [{"name": "tanet", "up_bit_s": 100e6, "down_bit_s": 100e6, "delay_ms": 10.0, "loss_ratio": 0.0}],
        "peers": ["fascicle", "ftp", "erlang"],
        "workload": "paper",
        "seed": 1,
        "encoding": "auto",
        "plain": False,
    }
    made = new(machine, options, [{"peer": "orthanc", "reason": "not installed: Orthanc (Debian: orthanc)"}])
    made["links"] = {"tanet": {"method": "userspace", "sysctl": {"tcp_congestion_control": "cubic"}}}
    made["runs"] = [
        run("ftp", 0, 10.0, 0),
        run("fascicle", 5, 4.4, 0, told={"timeline": timeline}),
        run("fascicle", 5, 4.8, 1, told={"timeline": timeline}),
        run("fascicle", 1, 5.0, 0),
        {"profile": "tanet", "peer": "erlang", "nodes": 5, "run": 0, "order": 0, "seed": 1, "error": "it fell over"},
    ]
    return made


def test_mean_deviation_and_median() -> None:
    assert figures.spread([1.0, 2.0, 6.0]) == figures.Spread(3, 3.0, pytest.approx(2.6458, abs=1e-4), 2.0)
    assert figures.spread([4.0]) == figures.Spread(1, 4.0, 0.0, 4.0)


def test_goodput_is_bits_between_samples() -> None:
    assert figures.goodput_series({"goodput": [[0.0, 0], [0.1, 1000], [0.1, 1000], [0.3, 2000]]}) == [
        (pytest.approx(0.05), pytest.approx(80_000)),
        (pytest.approx(0.2), pytest.approx(40_000)),
    ]


def test_the_papers_figures_are_the_papers() -> None:
    assert paper.TABLE["lan"].streaming[5] == (5.6, 1.72)
    assert paper.TABLE["adsl"].ftp == (580.1, 4.78)
    assert set(paper.TABLE) < set(PROFILES)


def test_the_table_has_the_papers_rows_and_says_what_was_scaled(results: dict[str, Any]) -> None:
    text = table(results)
    assert "| TANet | as the paper printed it | 58.30 +- 0.95 | 28.60 +- 1.96 | 33.50 +- 2.91 | 55.90 +- 3.00 |" in text
    assert "| tanet | Fascicle | 5.00 | 4.60 +- 0.28 (4.60) |  | 10.00 |" in text
    assert "60 of the paper's 360 images" in text
    assert "| fascicle, 5 nodes | 4.60 +- 0.28 | 4.60 | 1.15 | 87.0% | 51.0 " in text
    assert "| 51.0 | 1.00 + 2.00 | 90 + 300 (80) | 3 | 2 |" in text


def test_the_table_says_what_failed_was_skipped_or_is_not_finished(results: dict[str, Any]) -> None:
    results["ended"] = "KeyboardInterrupt"
    text = table(results)
    assert "**Not complete**: KeyboardInterrupt" in text
    assert "* Failed: erlang 5 on tanet, run 1: it fell over" in text
    assert "* Skipped: orthanc: not installed" in text
    assert "Not complete" not in table(results | {"complete": True})


def test_the_table_says_which_rate_was_not_probed(results: dict[str, Any]) -> None:
    assert "was not probed" not in table(results)
    for each in results["runs"][:4]:
        del each["calibration"]["up_bit_s"]
    assert " The rate up was not probed: it is too high for datagrams, and loss slows a stream." in table(results)


def test_a_table_of_nothing_can_be_made(results: dict[str, Any]) -> None:
    assert "Not complete" in table(results | {"runs": [], "links": {}})


def test_results_are_read_as_they_were_kept_and_drawn(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib (extra `experiments`) is not installed")
    save(results, tmp_path)
    assert load(tmp_path) == results
    paths = write_report(load(tmp_path), tmp_path)
    assert [path.name for path in paths] == [
        "table.md",
        "paper.png",
        "time-tanet.png",
        "nodes-tanet.png",
        "goodput-tanet.png",
        "encodings-tanet.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[1:])
