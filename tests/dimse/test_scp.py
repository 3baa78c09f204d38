"""The SCP with real peers: DCMTK's and pynetdicom's requestors, every data set as it was sent."""

import shutil
import subprocess
from functools import partial

import pydicom
import pynetdicom
import pytest
import trio
from backports import zstd

from tests.dicom.build import CT, EXPLICIT, explicit_image
from tests.dimse.peer import VERIFICATION, left_over, open_scp
from transfer.dicom import check_complete, read_file_meta


def tool(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed; apt-get install dcmtk")
    return path


async def run(*command, timeout_s=60):
    with trio.fail_after(timeout_s):
        return await trio.run_process(
            list(map(str, command)), capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )


def data_sets(paths):
    """Return (SOP instance UID, transfer syntax) -> the data set's bytes."""
    found = {}
    for path in paths:
        data = path.read_bytes()
        meta = read_file_meta(memoryview(data))
        found[check_complete(data).sop_instance_uid, meta.transfer_syntax_uid] = data[meta.data_set_offset :]
    return found


@pytest.fixture(scope="session")
def wg04(real_data, tmp_path_factory):
    """wg04 with the compressed reference images unpacked, for DCMTK to read."""
    folder = tmp_path_factory.mktemp("wg04")
    for number, path in enumerate(sorted((real_data / "wg04").rglob("*_*"))):
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstd.decompress(data)
        (folder / f"{number:03}").write_bytes(data)
    return folder


async def test_echo(tmp_path):
    async with open_scp(tmp_path / "spool") as (port, spool):
        result = await run(tool("echoscu"), "-v", "127.0.0.1", port)
        assert result.returncode == 0, result.stdout
        assert left_over(spool) == []


async def test_storescu_sends_ct_head_and_every_byte_arrives(tmp_path, real_data):
    sources = [path for path in sorted((real_data / "ct_head").iterdir()) if path.name.startswith("I")][:40]
    async with open_scp(tmp_path / "spool") as (port, spool):
        result = await run(tool("storescu"), "-aet", "SCANNER", "127.0.0.1", port, *sources)
        assert result.returncode == 0, result.stdout
        assert data_sets(spool.ready.iterdir()) == data_sets(sources)
        header = pydicom.dcmread(next(spool.ready.iterdir())).file_meta
        assert header.SourceApplicationEntityTitle == "SCANNER"


async def test_dcmsend_sends_wg04_in_all_its_transfer_syntaxes(tmp_path, wg04):
    """DCMTK writes data sets anew when it sends; what it puts on the wire is what its own bit-preserving SCP keeps."""
    reference, sender = tmp_path / "reference", tool("dcmsend")
    reference.mkdir()
    async with open_scp(tmp_path / "spool") as (port, spool), trio.open_nursery() as nursery:
        result = await run(sender, "+sd", "127.0.0.1", port, wg04)
        assert result.returncode == 0, result.stdout
        ours = data_sets(spool.ready.iterdir())
        with trio.socket.socket() as free:
            await free.bind(("127.0.0.1", 0))
            their_port = free.getsockname()[1]
        words = [tool("storescp"), "--bit-preserving", "+xa", "-od", str(reference), str(their_port)]
        storescp = await nursery.start(partial(trio.run_process, words, check=False))
        while (await run(tool("echoscu"), "127.0.0.1", their_port)).returncode:
            await trio.sleep(0.02)
        assert (await run(sender, "+sd", "127.0.0.1", their_port, wg04)).returncode == 0
        storescp.kill()
    assert ours == data_sets(reference.iterdir())
    sources = data_sets(wg04.iterdir())
    assert len(ours) == len(sources) == 112
    assert ours.keys() == sources.keys()
    assert len({syntax for _, syntax in ours}) >= 8


def without_padding(path):
    """A data set but for what a sender may rewrite: group lengths (PS3.5 7.2) and trailing padding."""
    data_set = pydicom.dcmread(path)
    for tag in [tag for tag in data_set if tag.tag.element == 0 or tag.tag == 0xFFFCFFFC]:
        del data_set[tag.tag]
    return data_set


async def test_pixel_data_and_elements_of_wg04_are_the_source_s(tmp_path, wg04):
    sources = sorted(wg04.iterdir())[::9]
    async with open_scp(tmp_path / "spool") as (port, spool):
        assert (await run(tool("dcmsend"), "127.0.0.1", port, *sources)).returncode == 0
        received = {
            (d.SOPInstanceUID, d.file_meta.TransferSyntaxUID): d for d in map(without_padding, spool.ready.iterdir())
        }
    for source in map(without_padding, sources):
        assert received[source.SOPInstanceUID, source.file_meta.TransferSyntaxUID] == source


def by_pynetdicom(port, *, title="PYNETDICOM", times=1):
    """Echo and store with pynetdicom; return the statuses."""
    entity = pynetdicom.AE(ae_title=title)
    entity.add_requested_context(VERIFICATION)
    entity.add_requested_context(CT, EXPLICIT)
    association = entity.associate("127.0.0.1", port)
    if not association.is_established:
        return [association.acceptor.primitive.result_str]
    data_set = pydicom.dcmread(pydicom.filebase.DicomBytesIO(explicit_image()), force=True)
    data_set.file_meta = pydicom.dataset.FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = EXPLICIT
    statuses = [association.send_c_echo().Status]
    statuses += [association.send_c_store(data_set).Status for _ in range(times)]
    association.release()
    return statuses


async def test_pynetdicom_stores_and_echoes(tmp_path):
    async with open_scp(tmp_path / "spool") as (port, spool):
        assert await trio.to_thread.run_sync(lambda: by_pynetdicom(port, times=3)) == [0, 0, 0, 0]
        files = [path.read_bytes() for path in spool.ready.iterdir()]
    assert len(files) == 3
    assert len(set(files)) == 1  # the same instance is the same bytes
    assert files[0].endswith(explicit_image())


async def test_several_at_once(tmp_path):
    async with open_scp(tmp_path / "spool") as (port, spool), trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(trio.to_thread.run_sync, lambda: by_pynetdicom(port, times=5))
        nursery.cancel_scope.deadline = trio.current_time() + 30
        while len(left_over(spool)) < 20 or list(spool.incoming.iterdir()):
            await trio.sleep(0.01)
