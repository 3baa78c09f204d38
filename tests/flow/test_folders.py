"""Folders with hostile names, on the way in and on the way out."""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.get import OutFolder
from agent.sources import list_sources
from agent.verify import _Verify
from tests.flow.kit import CONTEXT, listed, noise, open_cluster
from transfer import receipts
from transfer.api import Go, StoredObject
from transfer.errors import FullError, UnusableFileError
from transfer.inspection import SourceFile
from transfer.objects import object_id
from transfer.protocol.messages import Checked


def keep(folder: OutFolder, data: bytes, *names: str) -> None:
    sink = folder.open(listed(data, "n1", names=names))
    sink.write(data)
    sink.finish()


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_link_to_itself_does_not_end_the_listing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.dcm").write_bytes(b"a")
    assert [found.path.name for found in list_sources(tmp_path) if isinstance(found, SourceFile)] == ["a.dcm", "loop"]


def test_what_cannot_be_looked_at_is_named_and_does_not_end_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat_some(path: os.PathLike[str], **how: bool) -> os.stat_result:
        if "locked" in os.fspath(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return stat(path, **how)

    stat = os.stat
    monkeypatch.setattr(os, "stat", stat_some)
    for name in ("a.dcm", "locked.dcm", "z.dcm"):
        (tmp_path / name).write_bytes(b"x")
    found = [each for each in list_sources(tmp_path) if isinstance(each, SourceFile)]
    assert [(each.path.name, each.size_bytes) for each in found] == [("a.dcm", 1), ("locked.dcm", 0), ("z.dcm", 1)]


def test_folders_deeper_than_names_go_are_told_and_do_not_end_the_listing(tmp_path: Path) -> None:
    before = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(300):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(before)
    (tmp_path / "z.dcm").write_bytes(b"z")
    found = list(list_sources(tmp_path))
    assert [item.name.endswith("/z.dcm") for item in found if isinstance(item, SourceFile)] == [True]
    assert len([item for item in found if isinstance(item, UnusableFileError)]) == 1


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b", "%2e%2e/x", "a%00b", "x" * 300, "/".join("d" * 300)])
def test_hostile_name_costs_the_name_not_the_image(tmp_path: Path, name: str) -> None:
    root = tmp_path / "out"
    root.mkdir()
    data = noise(100)
    keep(OutFolder(root), data, name)
    assert tree(root) == {f"{object_id(data)}.dcm": data}
    assert list(tmp_path.iterdir()) == [root]


def test_name_that_is_too_long_below_this_folder_costs_the_name(tmp_path: Path) -> None:
    root = tmp_path / "out"
    data = noise(100)
    keep(OutFolder(root), data, "/".join(["d" * 250] * 16) + "/x.dcm")
    assert list(tree(root).values()) == [data]


def test_objects_do_not_take_each_others_place(tmp_path: Path) -> None:
    first, second, third = noise(100, 1), noise(100, 2), noise(100, 3)
    folder = OutFolder(tmp_path)
    keep(folder, first, f"{object_id(second)}.dcm")
    keep(folder, second)
    keep(folder, third, f"{object_id(second)}.1.dcm", f"{object_id(second)}.dcm")
    assert sorted(tree(tmp_path).values()) == sorted([first, second, third])


def test_two_objects_that_come_at_once_do_not_take_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = OutFolder(tmp_path)
    both = threading.Barrier(2)
    mkdir = Path.mkdir

    def mkdir_together(path: Path, *args: Any, **how: Any) -> None:
        mkdir(path, *args, **how)
        with contextlib.suppress(threading.BrokenBarrierError):  # the other does not come: it waits for the lock
            both.wait(0.2)  # for the other thread, which may be kept from coming here

    monkeypatch.setattr(Path, "mkdir", mkdir_together)
    datas = [noise(100, 1), noise(100, 2)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda data: keep(folder, data, "IM/0001.dcm"), datas))
    assert sorted(tree(tmp_path).values()) == sorted(datas)


def test_disk_that_fills_up_leaves_no_half_file_under_a_further_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_half(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:50])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", copy_half)
    sink = OutFolder(tmp_path).open(listed(noise(100), "n1", names=["a.dcm", "b.dcm"]))
    sink.write(noise(100))
    with pytest.raises(FullError):
        sink.finish()
    sink.abandon()
    assert tree(tmp_path) == {}


def test_further_name_of_an_object_is_never_written_through_a_link(tmp_path: Path) -> None:
    """A folder that holds an earlier fetch may have links in the place of files."""
    root, other = tmp_path / "out", tmp_path / "other.dcm"
    root.mkdir()
    other.write_bytes(b"somebody's")
    (root / "b.dcm").symlink_to(other)
    data = noise(100)
    keep(OutFolder(root), data, "a.dcm", "b.dcm")
    assert other.read_bytes() == b"somebody's"
    assert tree(root) == {"a.dcm": data, "b.dcm": data}


def test_abandoned_object_leaves_nothing(tmp_path: Path) -> None:
    sink = OutFolder(tmp_path).open(listed(noise(100), "n1", names=["a.dcm"]))
    sink.write(b"x")
    sink.abandon()
    assert tree(tmp_path) == {}


async def test_answer_about_objects_that_were_not_asked_for_counts_for_nothing(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, "n1") as cluster:
        node = cluster.nodes["n1"].node
        mine, other = (node.receipt(cluster.nodes["n1"].put(noise(100, seed))) for seed in (1, 2))
        signed = node.sign("", [mine, other, other])
        verify = _Verify(deep=False)
        verify._sound = {mine.object_id.hex(): 0}
        answer = Checked(signed, [other.object_id, mine.object_id], [mine.object_id])
        key = node.signing_key.public_key()
        assert receipts.verify(signed, key).node_id == "n1"
        answered = verify._take("n1", answer, key, {mine.object_id.hex()})
        assert answered == {mine.object_id.hex()}
        assert verify._sound == {mine.object_id.hex(): 1}
        assert verify._problems == []


class _Listing:
    """A gateway whose listing is another one each time that it is asked."""

    def __init__(self, go: Go, *listings: list[StoredObject]) -> None:
        self._go, self._listings = go, list(listings)

    async def iterate_objects(self) -> AsyncIterator[StoredObject]:
        for stored in self._listings.pop(0):
            yield stored

    async def open_read(self, _: object) -> Go:
        return self._go


async def test_a_copy_that_moved_since_it_was_listed_is_looked_for_where_it_is_now(tmp_path: Path) -> None:
    """What does not lie where it is listed the second time is missing."""
    async with open_cluster(tmp_path, "n1", "n2") as cluster:
        stays, moved, lost = (noise(100, seed) for seed in (1, 2, 3))
        cluster.nodes["n1"].put(stays)
        cluster.nodes["n2"].put(moved)
        first = [listed(stays, "n1"), listed(moved, "n1"), listed(lost, "n1")]
        second = [listed(stays, "n1"), listed(moved, "n2"), listed(lost, "n1")]
        verify = _Verify(deep=True)
        found = await verify.check(_Listing(cluster.go("check"), first, second), CONTEXT)  # type: ignore[arg-type]  # a stand-in
        assert (found["replicas"], found["sound_replicas"]) == (3, 2)
        assert found["lost_objects"] == [object_id(lost)]
        assert found["problems"] == [{"object": object_id(lost), "node": "n1", "problem": "missing"}]
