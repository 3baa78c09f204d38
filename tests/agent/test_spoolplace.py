"""`spool.folder` changes while images wait: nothing that was acknowledged is forgotten."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from agent.delivery import Sent
from agent.items import Item, Priority
from agent.tree import Agent, serve_agent
from tests.agent.test_tree import Store, refuse, settings_of, wait_until
from transfer.errors import SettingsError, UnusableFileError

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
    noted, _, identity = (tmp_path / "state" / "spool_folder").read_text().partition("\0")
    assert (noted, identity) == (f"{tmp_path}/new", (tmp_path / "new" / "id").read_text())


async def test_no_start_on_the_mount_point_of_a_disk_that_is_not_there(tmp_path: Path) -> None:
    """Also while nothing waits: what is received below a mount point is hidden once the disk is there."""
    await receive(tmp_path, "spool")
    for content in ([b"received"], []):
        (tmp_path / "spool").rename(tmp_path / "away")
        (tmp_path / "spool" / "ready").mkdir(parents=True)
        with pytest.RaisesGroup(
            pytest.RaisesExc(SettingsError, match="is not the spool that it was .*see that its disk is mounted"),
            allow_unwrapped=True,
        ):
            await starts(tmp_path, "spool")
        assert list((tmp_path / "spool" / "ready").iterdir()) == []
        (tmp_path / "spool" / "ready").rmdir()
        (tmp_path / "spool").rmdir()
        (tmp_path / "away").rename(tmp_path / "spool")
        assert not content or await delivered(tmp_path, "spool") == content


async def test_a_disk_that_goes_away_while_the_agent_runs_makes_it_forget_nothing(tmp_path: Path) -> None:
    await receive(tmp_path, "spool")
    spool = tmp_path / "spool"

    async def lose(files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        spool.rename(tmp_path / "away")
        (spool / "ready").mkdir(parents=True)
        return [Sent(each.item_id, error=UnusableFileError("not there")) async for each in files]

    async with trio.open_nursery() as nursery:
        agent: Agent = await nursery.start(serve_agent, settings_of(tmp_path, FOLDER.format("spool")), {"live": lose})
        (destination,) = agent.destinations
        await wait_until(lambda: (tmp_path / "away").exists() and destination.statistics().state == "idle")
        with trio.fail_after(20):
            while not await agent.queue.next_try_s("live"):  # recorded
                await trio.sleep(0.01)
        assert [each.objects for each in await agent.queue.backlogs()] == [1]
        nursery.cancel_scope.cancel()
    (spool / "ready").rmdir()
    spool.rmdir()
    (tmp_path / "away").rename(spool)
    assert await delivered(tmp_path, "spool") == [b"received"]
