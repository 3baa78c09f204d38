"""`fascicle up` as a process: how it stops and what it leaves. Whole clusters are in tests/cluster."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

pytestmark = pytest.mark.cluster


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen]:
    words = ["up", "--data", str(tmp_path / "data"), "--nodes", "2", "--port", "0"]
    command = [sys.executable, "-m", "fascicle", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=_heed_hang_up) as process:
        yield process
        process.kill()


def _heed_hang_up() -> None:
    """Whatever runs the tests may have it ignored, and `up` goes by that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_children(up: subprocess.Popen) -> dict[str, int]:
    """Read what `up` tells people until all three children have started once."""
    pids: dict[str, int] = {}
    while len(pids) < 3:
        line = up.stderr.readline()
        assert line, "up ended"
        if " started (pid " in line:
            name = line.split()[2]
            pids[name] = int(line.rstrip(")\n").split()[-1])
    return pids


async def wait_gone(pids: dict[str, int]) -> None:
    for pid in pids.values():
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(descriptor)
        os.close(descriptor)


def test_who_is_waited_for_is_said_while_it_lasts(tmp_path: Path) -> None:
    words = ["up", "--data", str(tmp_path / "data"), "--nodes", "2", "--port", "0"]
    program = f"import fascicle.cli, fascicle.up; fascicle.up.SAY_AGAIN_S = 1.0; fascicle.cli.main({words!r})"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes, text=True) as up:
        try:
            node = wait_children(up)["node-1"]
            os.kill(node, signal.SIGSTOP)
            while "still waits for node-1; logs" not in (line := up.stderr.readline()):
                assert line, "up ended"
            assert str(tmp_path / "data" / "logs") in line
            os.kill(node, signal.SIGCONT)
            assert json.loads(up.stdout.readline())["ready"]
        finally:
            up.terminate()
            up.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_stops_everything_cleanly(up: subprocess.Popen, tmp_path: Path, number: signal.Signals) -> None:
    pids = wait_children(up)
    assert set(pids) == {"gateway", "node-1", "node-2"}
    up.send_signal(number)
    assert up.wait(30) == 0
    await wait_gone(pids)
    assert [path.name for path in (tmp_path / "data/run").iterdir()] == ["up.lock"]


async def test_a_hang_up_that_is_ignored_ends_nothing(tmp_path: Path) -> None:
    """As `nohup` has it: whoever started it logs out, and the cluster goes on."""
    words = ["up", "--data", str(tmp_path / "data"), "--nodes", "2", "--port", "0"]
    command = ["nohup", sys.executable, "-m", "fascicle", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        try:
            wait_children(up)
            up.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                up.wait(2)
            up.send_signal(signal.SIGTERM)
            assert up.wait(30) == 0
        finally:
            up.kill()


async def test_nothing_runs_on_when_it_is_killed_and_the_folder_can_be_used_again(
    up: subprocess.Popen, tmp_path: Path
) -> None:
    pids = wait_children(up)
    up.kill()
    up.wait()
    await wait_gone(pids)
    command = [sys.executable, "-m", "fascicle", "up", "--data", str(tmp_path / "data"), "--nodes", "1"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "has 2 nodes" in again.stderr  # refused for its own reason, not for a lock that nobody holds


def test_a_cluster_starts_again_of_which_parties_were_revoked(tmp_path: Path) -> None:
    """A workstation that was stolen, and a node that was taken away: neither keeps the others from coming up."""
    data = tmp_path / "data"
    words = ["up", "--data", str(data), "--nodes", "2", "--port", "0"]
    command = [sys.executable, "-m", "fascicle"]
    stolen = tmp_path / "stolen.json"
    for expected in (["node-1", "node-2"], ["node-1"]):
        with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
            try:
                ready = up.stdout.readline()
                assert ready, up.stderr.read()
                assert [node["node_id"] for node in json.loads(ready)["nodes"]] == expected
                if not stolen.exists():
                    shutil.copy(data / "credentials.json", stolen)
                    for name in ("workstation", "node-2"):
                        revoke = [*command, "revoke", name, "--to", str(data / "administrator.json")]
                        subprocess.run(revoke, check=True, capture_output=True)
                else:
                    asked = [subprocess.run([*command, "status", "--to", str(path)], capture_output=True, check=False)
                             for path in (stolen, data / "credentials.json")]  # fmt: skip
                    assert [each.returncode for each in asked] == [2, 0]
                up.terminate()
                assert up.wait(30) == 0
            finally:
                up.kill()


def test_what_killed_processes_were_writing_is_cleared_at_the_next_start(
    up: subprocess.Popen, tmp_path: Path, ended_pid: int
) -> None:
    wait_children(up)
    up.terminate()
    assert up.wait(30) == 0
    data = tmp_path / "data"
    folders = [".", "pki", "pki/gateway", "gateway", "gateway/identity", "nodes/node-1", "nodes/node-1/identity"]
    left = [data / folder / f"x.pem.{ended_pid}.1.temporary" for folder in folders]
    for each in left:
        each.write_bytes(b"half")
    words = ["up", "--data", str(data), "--port", "0"]
    with subprocess.Popen([sys.executable, "-m", "fascicle", *words], stdout=subprocess.PIPE, text=True) as again:
        try:
            assert again.stdout.readline()  # ready
            assert [each for each in left if each.exists()] == []
            again.terminate()
            assert again.wait(30) == 0
        finally:
            again.kill()


def test_a_second_one_on_the_folder_says_who_has_it(up: subprocess.Popen, tmp_path: Path) -> None:
    wait_children(up)
    command = [sys.executable, "-m", "fascicle", "up", "--data", str(tmp_path / "data")]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (2, "")
    assert f"(pid {up.pid}) has this folder" in second.stderr
