"""What a killed process was writing goes; what lives, or is called otherwise, stays."""

import os
from pathlib import Path

from structlog.testing import capture_logs

from transfer.leftovers import clear_leftovers


def test_only_files_of_processes_that_are_gone_are_cleared(tmp_path: Path, ended_pid: int) -> None:
    ours, gone, living = os.getpid(), ended_pid, os.getppid()
    cleared = [f"life.{gone}.17.temporary", f"trust.json.{ours}.18.temporary", f"a b\n.{gone}.1.temporary"]
    kept = [
        f"life.{living}.19.temporary",
        "life.1.20.temporary",  # of the system's first process, which lives
        "life",
        "x.temporary",
        f"life.{gone}.temporary",
        f".{gone}.21.temporary",
        f"life.{gone}.22.temporary.bak",
        f"life.{gone}x.23.temporary",
    ]
    for name in [*cleared, *kept]:
        (tmp_path / name).write_bytes(b"x")
    below = tmp_path / f"folder.{gone}.24.temporary"
    below.mkdir()
    (below / f"life.{gone}.25.temporary").write_bytes(b"x")
    link = tmp_path / f"link.{gone}.26.temporary"
    link.symlink_to(tmp_path / "life")
    with capture_logs() as logs:
        clear_leftovers(tmp_path, tmp_path / "not there")
        clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, below.name, link.name}
    assert len(list(below.iterdir())) == 1
    assert [(log["event"], log["files"]) for log in logs] == [("leftovers_cleared", len(cleared))]


def test_a_folder_that_cannot_be_read_keeps_nobody_from_its_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with capture_logs() as logs:
        clear_leftovers(tmp_path / "file")
    assert [log["event"] for log in logs] == ["leftovers_not_cleared"]
