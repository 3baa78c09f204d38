"""`spool.folder` changes while images wait: nothing that was acknowledged is forgotten."""

from pathlib import Path

import pytest
import trio

from agent.tree import Agent, serve_agent
from tests.agent.test_tree import Store, refuse, settings_of, wait_until
from transfer.errors import SettingsError

FOLDER = """
[[destination]]
name = "live"
credentials = "live.json"
[spool]
reserve_bytes = 0
folder = "{}"
"""


async def receive(folder: Path, name: str) -> None:
    """Run an agent with the spool `name` that takes one image while its destination is away."""
    async with trio.open_nursery() as nursery:
        agent: Agent = await nursery.start(serve_agent, settings_of(folder, FOLDER.format(name)), {"live": refuse})
        incoming = await agent.spool.begin("test")
        await incoming.write(b"received")
        await incoming.finish()
        while not await agent.queue.backlogs():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def delivered(folder: Path, name: str) -> list[bytes]:
    """Return what an agent with the spool `name` delivers."""
    store = Store(folder / name / "ready")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_agent, settings_of(folder, FOLDER.format(name)), {"live": store.deliver})
        await wait_until(lambda: bool(store.objects) and not list(store.spool.iterdir()))
        nursery.cancel_scope.cancel()
    return list(store.objects.values())


async def starts(folder: Path, name: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_agent, settings_of(folder, FOLDER.format(name)), {"live": refuse})
        nursery.cancel_scope.cancel()


async def test_no_start_while_images_wait_in_the_former_spool(tmp_path: Path) -> None:
    await receive(tmp_path, "old")
    with pytest.RaisesGroup(
        pytest.RaisesExc(SettingsError, match=f"{tmp_path}/old, where images wait .1.: "),
        allow_unwrapped=True,
    ):
        await starts(tmp_path, "new")
    assert not (tmp_path / "new").exists()
    assert await delivered(tmp_path, "old") == [b"received"]
    await starts(tmp_path, "new")
    await starts(tmp_path, "old")


async def test_images_that_were_moved_along_are_sent_from_the_new_spool(tmp_path: Path) -> None:
    await receive(tmp_path, "old")
    (tmp_path / "new" / "ready").mkdir(parents=True)
    for waiting in (tmp_path / "old" / "ready").iterdir():
        waiting.rename(tmp_path / "new" / "ready" / waiting.name)
    assert await delivered(tmp_path, "new") == [b"received"]


async def test_a_link_to_where_the_spool_went_is_no_other_spool(tmp_path: Path) -> None:
    await receive(tmp_path, "old")
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "old").symlink_to(tmp_path / "new")
    assert await delivered(tmp_path, "new") == [b"received"]


async def test_no_start_while_the_former_spool_is_away_unless_it_is_given_up(tmp_path: Path) -> None:
    await receive(tmp_path, "old")
    (tmp_path / "old").rename(tmp_path / "away")
    with pytest.RaisesGroup(
        pytest.RaisesExc(SettingsError, match=f"images may wait .*make {tmp_path}/state/spool_folder an empty file"),
        allow_unwrapped=True,
    ):
        await starts(tmp_path, "new")
    (tmp_path / "state" / "spool_folder").write_bytes(b"")
    await starts(tmp_path, "new")


async def test_no_start_with_a_spool_that_has_none_of_the_images_that_the_queue_knows(tmp_path: Path) -> None:
    """Where the former folder was not noted, as by an earlier version."""
    await receive(tmp_path, "old")
    note = tmp_path / "state" / "spool_folder"
    note.unlink()
    with pytest.RaisesGroup(
        pytest.RaisesExc(SettingsError, match=f"{tmp_path}/new/ready has none .*make {note} an empty file"),
        allow_unwrapped=True,
    ):
        await starts(tmp_path, "new")
    assert not (tmp_path / "new").exists()
    assert not note.exists()
    assert await delivered(tmp_path, "old") == [b"received"]
    note.unlink()
    await starts(tmp_path, "new")  # nothing waits any more


async def test_images_that_cannot_be_had_any_more_are_given_up_by_word(tmp_path: Path) -> None:
    await receive(tmp_path, "old")
    (tmp_path / "state" / "spool_folder").write_bytes(b"")
    await starts(tmp_path, "new")
    assert (tmp_path / "state" / "spool_folder").read_text() == f"{tmp_path}/new"
