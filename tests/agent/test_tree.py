"""The whole daemon but for the sending: spool, watched folders, C-STORE port, two destinations, status file."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import trio
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE
from pynetdicom.dsutils import encode

from agent.delivery import Sent
from agent.items import Item, Priority
from agent.report import read_report, status_path
from agent.settings import AgentSettings, load_settings
from agent.tree import Agent, serve_agent
from transfer.errors import SettingsError, UnreachableError
from transfer.objects import object_id

SETTINGS = """
[[destination]]
name = "live"
credentials = "live.json"
[[destination]]
name = "dead"
credentials = "dead.json"
[spool]
reserve_bytes = 0
destinations = ["live"]
[[watch]]
folder = "outbox"
destinations = ["live"]
settle_s = 0.1
after = "delete"
[[watch]]
folder = "both"
settle_s = 0.1
after = "delete"
"""


def settings_of(folder: Path, text: str = SETTINGS) -> AgentSettings:
    path = folder / "agent.toml"
    path.write_text(text)
    return load_settings(path)


async def refuse(files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
    raise UnreachableError("no answer")


class Store:
    """A destination that keeps what it is sent."""

    def __init__(self, spool: Path) -> None:
        self.spool, self.objects = spool, dict[str, bytes]()

    async def deliver(self, files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        sent = []
        async for item in files:
            data = item.location(self.spool).read_bytes()
            self.objects[object_id(data)] = data
            sent.append(Sent(item.item_id, object_id(data)))
        return sent


async def wait_until(reached: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not reached():
            await trio.sleep(0.01)


async def test_images_reach_the_live_destination_while_the_other_is_dead(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / "outbox").mkdir()
    (tmp_path / "both").mkdir()
    (tmp_path / "outbox" / "watched").write_bytes(b"watched")
    (tmp_path / "both" / "shared").write_bytes(b"shared")
    store = Store(tmp_path / "spool" / "ready")
    async with trio.open_nursery() as nursery:
        agent: Agent = await nursery.start(serve_agent, settings, {"live": store.deliver, "dead": refuse})
        incoming = await agent.spool.begin("test")
        await incoming.write(b"received")
        await incoming.finish()
        await wait_until(lambda: not list(agent.spool.ready.iterdir()) and not list((tmp_path / "outbox").iterdir()))
        await wait_until(lambda: len(store.objects) == 3)
        assert sorted(store.objects.values()) == [b"received", b"shared", b"watched"]
        assert (tmp_path / "both" / "shared").read_bytes() == b"shared"
        nursery.cancel_scope.cancel()
    dead = Store(tmp_path / "spool" / "ready")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_agent, settings, {"live": store.deliver, "dead": dead.deliver})
        await wait_until(lambda: not list((tmp_path / "both").iterdir()))
        assert list(dead.objects.values()) == [b"shared"]
        await wait_until(status_path(Path(settings.state)).exists)
        nursery.cancel_scope.cancel()
    report = read_report(status_path(Path(settings.state)))
    assert [each.name for each in report.destinations] == ["live", "dead"]


async def test_two_agents_never_share_a_state_folder(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_agent, settings, {"live": refuse})
        with pytest.RaisesGroup(pytest.RaisesExc(SettingsError, match="in use by another agent"), allow_unwrapped=True):
            await serve_agent(settings, {"live": refuse})
        nursery.cancel_scope.cancel()


async def test_what_a_killed_agent_was_writing_is_cleared_at_the_next_start(tmp_path: Path, ended_pid: int) -> None:
    settings = settings_of(tmp_path)
    state = Path(settings.state)
    state.mkdir()
    left = state / f"paths.json.{ended_pid}.1.temporary"
    left.write_bytes(b"half")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_agent, settings, {"live": refuse})
        assert not left.exists()
        nursery.cancel_scope.cancel()


async def test_a_port_in_use_is_said_at_the_start(tmp_path: Path) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    settings = settings_of(tmp_path, f'{SETTINGS}\n[scp]\nlisten = "127.0.0.1:{port}"\n')
    async with listener:
        with pytest.RaisesGroup(SettingsError, allow_unwrapped=True, flatten_subgroups=True):
            await serve_agent(settings, {"live": refuse})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "destination"),
        (SETTINGS + '[[watch]]\nfolder = "x"\ndestinations = ["lvie"]', "unknown destination `lvie`"),
        (SETTINGS + '[[watch]]\nfolder = "x"\nsetle_s = 1.0', "did you mean `settle_s`"),
        (SETTINGS + '[[watch]]\nfolder = "outbox/sub"', "overlap"),
        (SETTINGS + '[[watch]]\nfolder = "spool"', "overlap"),
        (SETTINGS + '[[watch]]\nfolder = "."', "overlap"),
        (SETTINGS + '[[watch]]\nfolder = "x"\nafter = "move"', "go together"),
        (SETTINGS + '[[watch]]\nfolder = "x"\nafter = "move"\nmove_to = "x/sent"', "overlap"),
        (SETTINGS + '[[watch]]\nfolder = "x"\nafter = "shred"', "after"),
        (SETTINGS + '[[destination]]\nname = "live"\ncredentials = "x"', "a name of its own"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        settings_of(tmp_path, text)


def test_folders_are_below_the_settings_file(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert settings.state == str(tmp_path / "state")
    assert settings.spool.folder == str(tmp_path / "spool")
    assert settings.destination[0].credentials == str(tmp_path / "live.json")
    assert settings.watch[0].folder == str(tmp_path / "outbox")


def store_by_dicom(port: int) -> tuple[int, bytes]:
    """Send one instance as a scanner does; return the status and the data set's bytes."""
    instance = Dataset()
    instance.SOPClassUID, instance.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    instance.StudyInstanceUID, instance.SeriesInstanceUID = generate_uid(), generate_uid()
    instance.PixelData, instance["PixelData"].VR = b"\x01\x02" * 50_000, "OW"
    instance.add_new(0xFFFCFFFC, "OB", bytes(126))  # trailing padding is the sender's, and stays
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    scanner = AE()
    scanner.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    association = scanner.associate("127.0.0.1", port)
    status = association.send_c_store(instance)
    association.release()
    return status.Status, encode(instance, is_implicit_vr=False, is_little_endian=True)


async def test_an_image_from_a_scanner_reaches_the_destination(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, f'{SETTINGS}\n[scp]\nlisten = "127.0.0.1:0"\n')
    store = Store(tmp_path / "spool" / "ready")
    async with trio.open_nursery() as nursery:
        agent: Agent = await nursery.start(serve_agent, settings, {"live": store.deliver, "dead": refuse})
        status, data_set = await trio.to_thread.run_sync(store_by_dicom, agent.scp_port)
        assert status == 0
        await wait_until(lambda: len(store.objects) == 1 and not list(agent.spool.ready.iterdir()))
        nursery.cancel_scope.cancel()
    (stored,) = store.objects.values()
    assert stored[128:132] == b"DICM"
    assert stored.endswith(data_set)
