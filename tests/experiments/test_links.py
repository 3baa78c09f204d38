"""Real links in real namespaces: what they are probed to be, transfers over them, and that nothing is left."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from experiments import calibration, namespaces, workplace
from experiments.links import has_netem, lane_settings, open_link
from experiments.profiles import PROFILES, parse_own
from fascicle.cli import main
from tests.cluster.harness import eventually
from transfer.errors import SettingsError

pytestmark = pytest.mark.cluster
WHY_NOT = namespaces.why_not() or ("" if os.path.exists("/dev/net/tun") else "there is no /dev/net/tun")
needs_namespaces = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "it can run")


def ours() -> list[str]:
    """Return what is there of this process's namespaces and control groups."""
    groups = namespaces.accounting.mount_point()
    places = [namespaces.NAMED, *([groups] if groups else [])]
    return [path.name for place in places for path in place.glob(f"{namespaces.PREFIX}{os.getpid()}n*")]


@needs_namespaces
@pytest.mark.parametrize(
    ("rate", "delay", "loss"), [("8M/20M", "30ms", "2%"), ("512k/2M", "20ms", "1%"), ("512k/4M", "", "")]
)
def test_a_link_of_ones_own_is_what_it_should_be_and_leaves_nothing(rate: str, delay: str, loss: str) -> None:
    profile = parse_own(rate, delay, loss)
    with open_link(profile, seed=3) as link:
        assert link.method == ("netem" if has_netem() else "userspace" if delay else "tbf")
        found = calibration.calibrate(link)
        assert ours() != []
    assert calibration.complaints(profile, found) == []
    assert ours() == []


@needs_namespaces
def test_a_link_that_is_not_what_it_should_be_is_an_error_with_both_figures() -> None:
    with open_link(parse_own("8M", "10ms", "")) as link:
        link.profile = parse_own("8M", "40ms", "")
        with pytest.raises(namespaces.LinkError, match=r"round trip 1\d\.\d ms, not 40 ms"):
            calibration.calibrate(link, tries=1)


@needs_namespaces
def test_a_short_campaign_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["own", "--rate", "80M", "--delay", "4ms", "--peers", "fascicle,ftp", "--nodes", "2", "--runs", "1"]
    code = main(["experiment", "run", *words, "--objects", "6", "--encoding", "raw", "--out", str(tmp_path / "out")])
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (code, kept["complete"]) == (0, True), kept["runs"]
    assert kept["machine"]["kernel"] == os.uname().release
    assert kept["machine"]["commit"]
    assert kept["links"]["own"]["method"] in ("netem", "userspace")
    assert len({run["seed"] for run in kept["runs"]}) == 1
    for run in kept["runs"]:
        assert 0.9 * 80e6 < run["calibration"]["up_bit_s"] < 1.05 * 80e6
        assert run["objects"] == 6
        assert run["seconds"] >= run["floor_s"] * 0.98
        assert run["wire_up_bytes"] >= run["bytes"]
        assert 1 << 20 < run["server_process_peak_bytes"] <= run["server_peak_bytes"]
    assert "| fascicle, 2 nodes |" in capsys.readouterr().out
    assert ours() == []


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_campaign_cleans_up_and_keeps_what_it_has(number: signal.Signals, tmp_path: Path) -> None:
    words = ["own", "--rate", "20M", "--delay", "4ms", "--peers", "fascicle", "--nodes", "1", "--runs", "2"]
    command = [
        "env",
        "--default-signal=INT",  # which a shell's job in the background ignores, and its children with it
        sys.executable,
        "-m",
        "fascicle",
        "experiment",
        "run",
        *words,
        "--objects",
        "5",
        "--out",
        tmp_path / "out",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "run 2 of 2" in line:
                break
        process.send_signal(number)
        process.communicate(timeout=60)
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (process.returncode, kept["complete"], kept["ended"]) == (130, False, "KeyboardInterrupt")
    assert [run["objects"] for run in kept["runs"]] == [5]
    assert not list(Path(tempfile.gettempdir()).glob(f"{workplace.PREFIX}{process.pid}-*"))
    assert not list(namespaces.NAMED.glob(f"{namespaces.PREFIX}{process.pid}n*"))


@needs_namespaces
def test_what_a_killed_process_left_is_removed() -> None:
    name = f"{namespaces.PREFIX}4194304n0c"  # above every process id (proc(5), pid_max)
    namespaces.call(namespaces.program("ip"), "netns", "add", name)
    with subprocess.Popen([namespaces.program("ip"), "netns", "exec", name, "sleep", "300"]) as left:
        eventually(lambda: Path(f"/proc/{left.pid}/comm").read_text() == "sleep\n")  # `ip` has entered, and become it
        assert name in namespaces.remove_stale()  # others may have left something, too
        assert left.wait(10) == -signal.SIGKILL
    assert not (namespaces.NAMED / name).exists()


def test_the_work_folder_of_a_killed_process_is_removed_and_no_other(tmp_path: Path) -> None:
    dead, living = tmp_path / f"{workplace.PREFIX}4194304-x", tmp_path / f"{workplace.PREFIX}{os.getpid()}-x"
    other = tmp_path / f"{workplace.PREFIX}abc"
    for folder in (dead, living, other):
        (folder / "inner").mkdir(parents=True)
    workplace.remove_stale(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living, other])


def test_without_root_the_message_says_what_is_missing_and_what_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    words = r"network namespaces need root.*`fascicle experiment run loop` works"
    with pytest.raises(SettingsError, match=words), open_link(PROFILES["tanet"]):
        pass
    with open_link(PROFILES["loop"]) as link:
        assert (link.method, link.client.command("ls")) == ("loopback", ["ls"])


def test_the_directions_of_a_userspace_link_differ_in_rate_and_seed() -> None:
    settings = lane_settings(PROFILES["adsl"], seed=5)
    assert settings["up"] == {"rate_bit_s": 2e6, "delay_s": 0.02, "loss_ratio": 0, "queue_bytes": 65536, "seed": 10}
    assert (settings["down"]["rate_bit_s"], settings["down"]["seed"]) == (8e6, 11)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own is mounted by root only")
def test_a_full_disk_ends_it_with_what_is_to_be_done(tmp_path: Path) -> None:
    words = ["loop", "--peers", "fascicle", "--nodes", "1", "--runs", "1", "--objects", "9", "--out", tmp_path / "out"]
    script = f'mount -t tmpfs -o size=4m none \'{tmp_path / "small"}\' && exec "$0" "$@"'
    (tmp_path / "small").mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, "-m", "fascicle", "experiment", "run", *words],
        env=os.environ | {"TMPDIR": str(tmp_path / "small")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (done.returncode, kept["complete"], kept["runs"]) == (1, False, [])
    assert kept["ended"].endswith("No space left on device")
    assert kept["ended"] in done.stderr and "TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr
