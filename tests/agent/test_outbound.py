"""What a transfer says of its files is said of the items that they were given for."""

import datetime
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.delivery import Sent, outcome
from agent.items import File, Item, NewItem, Outcome, Priority
from agent.outbound import _Outbound, deliveries, sent
from agent.queue import Queue, open_queue
from agent.settings import AgentSettings, DestinationSettings
from transfer import credentials, pki
from transfer.api import CommitReceipt
from transfer.errors import SettingsError, StorageError, TruncatedError
from transfer.inspection import SourceFile
from transfer.outcomes import Outcome as FileOutcome
from transfer.outcomes import SendResult

RECEIPT = CommitReceipt(
    transfer_id="t", objects=1, bytes=1, merkle_root="", committed_at="", conflicts=[], signature=""
)


@pytest.fixture
def outbound(tmp_path: Path) -> _Outbound:
    settings = DestinationSettings(name="cloud", credentials="none")
    return _Outbound(settings, tmp_path / "spool", tmp_path / "memory")


async def take(queue: Queue, path: Path, size_bytes: int) -> Item:
    """Queue a state of a file, as the watcher does."""
    file = File(os.fsencode(path), size_bytes, size_bytes)
    await queue.add([NewItem(str(path.parent), file, path.name, Priority.NORMAL, ["cloud"])])
    (item,) = await queue.ready("cloud", 0, 9)
    return item


async def test_a_file_that_changed_while_it_was_sent_is_not_done_by_what_it_was(
    outbound: _Outbound, tmp_path: Path
) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:

        async def both() -> AsyncIterator[Item]:
            for size_bytes in (1, 2):
                yield await take(queue, tmp_path / "a", size_bytes)

        given: list[tuple[SourceFile, int]] = []
        old, new = [source async for source in outbound._sources(both(), given)]
        # what is wrong with the new state is found at once; the old one is still on its way then
        result = SendResult([FileOutcome(new, error=TruncatedError("x")), FileOutcome(old, "old")], RECEIPT)
        await queue.record("cloud", [outcome(each, 0, 0.0, 0.5) for each in sent(result, given)])
        assert await queue.complete(9) == []
        assert [reason for *_, reason in await queue.parked(9)] == ["truncated"]


def test_without_a_receipt_nothing_is_done() -> None:
    source = SourceFile(Path("a"), "a", 1)
    (found,) = sent(SendResult([FileOutcome(source, "id")], None), [(source, 7)])
    assert (found.item_id, found.object_id, type(found.error)) == (7, "", StorageError)
    assert sent(SendResult([FileOutcome(source, "id")], RECEIPT), [(source, 7)]) == [Sent(7, "id")]
    assert outcome(found, 0, 0.0, 0.0) == Outcome(7, "waiting", reason="storage")


def credentials_file(folder: Path, life: datetime.timedelta) -> Path:
    """Make credentials that end so long from now; they begin an hour back."""
    authority = pki.create_authority(folder / "pki")
    pki.issue(authority, folder / "ws", name="ct-1", role="workstation", life=life)
    credentials.save(credentials.from_identity("https://127.0.0.1:1", folder / "ws"), folder / "credentials.json")
    return folder / "credentials.json"


def settings_of(file: Path) -> AgentSettings:
    return AgentSettings(destination=[DestinationSettings(name="cloud", credentials=str(file))])


async def nothing() -> AsyncIterator[Item]:
    for item in ():
        yield item


async def test_a_certificate_that_has_ended_keeps_no_scanner_out(tmp_path: Path) -> None:
    """The agent starts, takes in what comes, and fails at this destination until the file is renewed."""
    file = credentials_file(tmp_path, -datetime.timedelta(minutes=1))
    deliver = deliveries(settings_of(file))["cloud"]
    with pytest.raises(SettingsError, match="expired at"):
        await deliver(nothing(), Priority.NORMAL)


def test_credentials_that_never_were_any_are_refused_at_the_start(tmp_path: Path) -> None:
    file = credentials_file(tmp_path, -datetime.timedelta(minutes=1))
    loaded = credentials.load(file)
    credentials.save(msgspec.structs.replace(loaded, certificate="nonsense"), file)
    with pytest.raises(SettingsError, match="cannot be used"):
        deliveries(settings_of(file))
