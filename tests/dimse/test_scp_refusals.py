"""The SCP and what goes wrong: wrong bytes, wrong peers, limits, full and failing disks; nothing half is kept."""

import contextlib
import struct
import zlib

import pytest
import trio
from structlog.testing import capture_logs

from agent.admission import ScpSettings, judge
from agent.scp import Conversation, Server, serve_scp
from tests.dicom.build import (
    CT,
    IMPLICIT,
    SEQUENCE_END,
    UNDEFINED,
    element,
    explicit_image,
    implicit,
    implicit_image,
    uid,
)
from tests.dimse.peer import (
    ABORT,
    RELEASE,
    associate_request,
    associated,
    data_pdu,
    echo_request,
    elements,
    left_over,
    open_scp,
    pdv,
    receive_pdu,
    status_of,
    store_request,
)
from transfer.dicom import check_complete
from transfer.dicom.syntaxes import DEFLATED_LITTLE
from transfer.dimse import pdu
from transfer.errors import SettingsError, StorageError
from transfer.settings import parse

STORE = data_pdu(pdv(store_request(), is_command=True))
ABORTED = 7


async def store(stream, data_set, request=None):
    await stream.send_all(data_pdu(pdv(request or store_request(), is_command=True)))
    await stream.send_all(data_pdu(pdv(data_set[:50], is_last=False)) + data_pdu(pdv(data_set[50:])))
    return await receive_pdu(stream)


async def test_store_byte_by_byte_then_echo_then_release(tmp_path):
    async with open_scp(tmp_path) as (port, spool), associated(port) as stream:
        for byte in STORE + data_pdu(pdv(explicit_image())):
            await stream.send_all(bytes([byte]))
        assert status_of(await receive_pdu(stream)) == 0
        (kept,) = spool.ready.iterdir()
        assert check_complete(kept.read_bytes()).sop_instance_uid == "1.2.3"
        await stream.send_all(data_pdu(pdv(echo_request(9), context_id=3, is_command=True)) + RELEASE)
        answer = await receive_pdu(stream)
        assert status_of(answer) == 0
        assert elements(answer[1][6:])[0x0120] == b"\x09\0"
        assert await receive_pdu(stream) == (6, bytes(4))
        assert await receive_pdu(stream) is None


@pytest.mark.parametrize(
    ("data_set", "request_", "status"),
    [
        (explicit_image()[:-1], store_request(), 0xC000),
        (explicit_image() + b"x", store_request(), 0xC000),
        (b"\xff" * 300, store_request(), 0xC000),
        (b"", store_request(), 0xC000),
        # in the spool they would read as the end of the meta information before them, and mostly be parked for ever
        (implicit(0x00020010, uid(IMPLICIT)) + implicit_image(), store_request(), 0xC000),
        (element(0x00020010, "UI", uid(IMPLICIT)) + explicit_image(), store_request(), 0xC000),
        (element(0x00020010, "SQ", length=UNDEFINED) + SEQUENCE_END + explicit_image(), store_request(), 0xC000),
        (element(0x00020010, "XX", bytes(4), length=0) + explicit_image(), store_request(), 0xC000),
        (explicit_image(), store_request("1.2.4"), 0xA900),
        (explicit_image().replace(CT.encode() + b"\0", CT[:-1].encode() + b"4\0"), store_request(), 0xA900),
        (explicit_image(), store_request(""), 0xC000),
        (explicit_image(), store_request(sop_class="1.2.840.10008.5.1.4.1.1.4"), 0x0122),
        (explicit_image(), store_request().replace(b"\0\x01\x02\0\0\0\x01\0", b"\0\x01\x02\0\0\0\x20\0"), 0x0211),
    ],
)
async def test_what_cannot_be_kept_is_refused_and_the_association_goes_on(tmp_path, data_set, request_, status):
    async with open_scp(tmp_path) as (port, spool), associated(port) as stream:
        assert status_of(await store(stream, data_set, request_)) == status
        assert left_over(spool) == []
        assert status_of(await store(stream, explicit_image())) == 0
        assert len(left_over(spool)) == 1


async def test_uids_that_look_like_paths_stay_data(tmp_path):
    data_set = explicit_image().replace(
        element(0x00080018, "UI", uid("1.2.3")), element(0x00080018, "UI", b"../../x\0")
    )
    async with open_scp(tmp_path / "a" / "b") as (port, spool), associated(port) as stream:
        assert (
            status_of(await store(stream, data_set, store_request("1.2.3.45").replace(b"1.2.3.45", b"../../x\0"))) == 0
        )
        (kept,) = spool.ready.iterdir()
        assert check_complete(kept.read_bytes()).sop_instance_uid == "../../x"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


async def test_full_spool_is_out_of_resources(tmp_path):
    async with open_scp(tmp_path, reserve_bytes=1 << 60) as (port, spool), associated(port) as stream:
        assert status_of(await store(stream, explicit_image())) == 0xA700
        assert left_over(spool) == []


class FailingSpool:
    """A disk that fails at one of the spool's steps; nothing but the failure."""

    def __init__(self, failing):
        self.failing, self.abandoned = failing, 0

    async def begin(self, origin):
        return self

    async def write(self, buffer):
        if self.failing == "write":
            raise StorageError("the disk failed")

    async def finish(self):
        raise StorageError("the flush failed")

    async def abandon(self):
        self.abandoned += 1


@pytest.mark.parametrize("failing", ["write", "finish"])
async def test_failing_disk_is_a_processing_failure(tmp_path, failing):
    spool = FailingSpool(failing)
    async with open_scp(tmp_path, spool=spool) as (port, _), associated(port) as stream:
        assert status_of(await store(stream, explicit_image())) == 0x0110
    assert spool.abandoned == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        bytes(64),
        b"\xff" * 64,
        b"\x01\0\xff\xff\xff\xff",
        b"\x04\0\xff\xff\xff\xff",
        struct.pack(">BxL", 1, 70) + bytes(70),
        data_pdu(pdv(b"x")),
        RELEASE,
    ],
)
async def test_garbage_is_answered_by_an_abort_at_once(tmp_path, data):
    with capture_logs() as logs:
        async with open_scp(tmp_path) as (port, spool), await trio.open_tcp_stream("127.0.0.1", port) as stream:
            with trio.fail_after(2):
                await stream.send_all(data)
                assert (await receive_pdu(stream))[0] == ABORTED
                assert await receive_pdu(stream) is None
            await stream.aclose()
            assert left_over(spool) == []
            await wait_for(lambda: [log for log in logs if log["event"] == "association_ended"])


async def wait_for(condition):
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


@pytest.mark.parametrize("wrong", [b"\x04\0\xff\xff\xff\xff", data_pdu(pdv(b"x", context_id=99)), STORE, b"\x09" * 6])
async def test_breaches_in_mid_data_set_leave_nothing(tmp_path, wrong):
    async with open_scp(tmp_path) as (port, spool), associated(port) as stream:
        await stream.send_all(STORE + data_pdu(pdv(explicit_image()[:60], is_last=False)) + wrong)
        assert (await receive_pdu(stream))[0] == ABORTED
        assert await receive_pdu(stream) is None
        await stream.aclose()
        await wait_for(lambda: not left_over(spool))


@pytest.mark.parametrize("end", [ABORT, b"", RELEASE])
async def test_the_end_in_mid_data_set_leaves_nothing_and_acknowledges_nothing(tmp_path, end):
    with capture_logs() as logs:
        async with open_scp(tmp_path) as (port, spool):
            async with associated(port) as stream:
                await stream.send_all(STORE + data_pdu(pdv(explicit_image()[:-1], is_last=False)))
                await wait_for(lambda: left_over(spool))
                await stream.send_all(end)
                await stream.send_eof()
                answer = await receive_pdu(stream)
                assert answer is None or answer[0] == 6
            await wait_for(lambda: logs and logs[-1]["event"] == "association_ended" and not left_over(spool))
    assert logs[-1]["stored_count"] == 0
    assert "1.2.3" not in str(logs[-1]).replace("127.0.0.1", "")


async def test_slow_loris_is_cut_off(tmp_path, autojump_clock):
    with capture_logs() as logs:
        server, client = trio.testing.memory_stream_pair()
        await slowly(server, client, associate_request()[:20])
    assert logs[-1]["reason"] == "timeout before a request"
    assert logs[-1]["seconds"] == pytest.approx(30, abs=0.1)


async def test_idle_association_is_aborted(tmp_path, autojump_clock):
    with capture_logs() as logs:
        server, client = trio.testing.memory_stream_pair()
        await slowly(server, client, associate_request() + STORE[:40])
    assert logs[-1]["reason"] == "timeout"
    assert 120 <= logs[-1]["seconds"] < 160


async def slowly(server, client, data):
    """Serve `server` while `data` drips in, a byte a second for the last ten, and then nothing."""
    await client.send_all(data[:-10])

    async def drip():
        for byte in data[-10:]:
            await client.send_all(bytes([byte]))
            await trio.sleep(1)

    async def read():
        while await client.receive_some(65536):
            pass
        await client.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        nursery.start_soon(read)
        await Conversation(Server(ScpSettings(), FailingSpool("write")), server, host="loris").run()
        await server.aclose()


async def test_associations_are_limited(tmp_path):
    async with open_scp(tmp_path, max_associations=2) as (port, _), associated(port), associated(port) as second:
        async with await trio.open_tcp_stream("127.0.0.1", port) as third:
            await third.send_all(associate_request())
            assert await receive_pdu(third) == (3, bytes((0, 2, 3, 2)))
            assert await receive_pdu(third) is None
        await second.send_all(RELEASE)
        assert await receive_pdu(second) == (6, bytes(4))
        await second.aclose()
        with trio.fail_after(5):
            while not await may_associate(port):
                await trio.sleep(0.01)


async def may_associate(port):
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(associate_request())
        return (await receive_pdu(stream))[0] == 2


async def test_one_address_does_not_get_every_association(tmp_path):
    async with (
        open_scp(tmp_path, max_associations=3, max_associations_per_address=1) as (port, _),
        associated(port),
        await trio.open_tcp_stream("127.0.0.1", port) as second,
        await open_from("127.0.0.2", port) as other,
    ):
        await second.send_all(associate_request())
        assert await receive_pdu(second) == (3, bytes((0, 2, 3, 2)))
        await other.send_all(associate_request())
        assert (await receive_pdu(other))[0] == 2


async def test_the_oldest_of_those_that_ask_for_nothing_gives_way(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.scp.STRANGERS_ADDRESS_MAX", 8)
    async with open_scp(tmp_path, max_associations=1) as (port, _), associated(port) as good:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(20)]
        with trio.fail_after(4):
            for stream in silent[:12]:
                with contextlib.suppress(trio.BrokenResourceError):  # turned out by RST
                    assert not await stream.receive_some(1)
        await good.send_all(data_pdu(pdv(echo_request(), context_id=3, is_command=True)))
        assert status_of(await receive_pdu(good)) == 0
        await good.send_all(RELEASE)
        assert await receive_pdu(good) == (6, bytes(4))
        await good.aclose()
        with trio.fail_after(5):
            while not await may_associate(port):
                await trio.sleep(0.01)
        for stream in silent:
            await stream.aclose()


async def open_from(address, port):
    """Connect from another address of this machine."""
    socket = trio.socket.socket()
    await socket.bind((address, 0))
    await socket.connect(("127.0.0.1", port))
    return trio.SocketStream(socket)


REQUEST = pdu.decode_associate_request(associate_request(called="FASCICLE", calling="CT1")[6:])
KNOWN = {"CT1": ["10.1.0.0/16", "::1"], "ANYWHERE": []}


@pytest.mark.parametrize(
    ("settings", "host", "rejection"),
    [
        (ScpSettings(), "10.0.0.1", None),
        (ScpSettings(ae_title="OTHER"), "10.0.0.1", None),
        (
            ScpSettings(ae_title="OTHER", check_called_ae_title=True),
            "10.0.0.1",
            pdu.CALLED_AE_TITLE_NOT_RECOGNISED,
        ),
        (ScpSettings(check_called_ae_title=True), "10.0.0.1", None),
        (ScpSettings(calling_ae_titles=KNOWN), "10.1.2.3", None),
        (ScpSettings(calling_ae_titles=KNOWN), "::ffff:10.1.2.3", None),
        (ScpSettings(calling_ae_titles=KNOWN), "::1", None),
        (ScpSettings(calling_ae_titles=KNOWN), "10.2.0.1", pdu.CALLING_AE_TITLE_NOT_RECOGNISED),
        (ScpSettings(calling_ae_titles={"CT1": []}), "10.2.0.1", None),
        (ScpSettings(calling_ae_titles={"CT2": []}), "10.1.0.1", pdu.CALLING_AE_TITLE_NOT_RECOGNISED),
    ],
)
def test_who_may_associate(settings, host, rejection):
    assert judge(REQUEST, settings, host=host) == rejection


def test_other_versions_and_application_contexts_are_rejected():
    body = associate_request()[6:]
    future = pdu.decode_associate_request(b"\0\x02" + body[2:])
    assert judge(future, ScpSettings(), host="::1") == pdu.PROTOCOL_VERSION_NOT_SUPPORTED
    other = pdu.decode_associate_request(body.replace(b"10008.3.1.1.1", b"10008.3.1.1.9"))
    assert judge(other, ScpSettings(), host="::1") == pdu.APPLICATION_CONTEXT_NOT_SUPPORTED


async def test_rejected_peer_reads_why(tmp_path):
    async with (
        open_scp(tmp_path, calling_ae_titles={"CT1": ["10.0.0.0/8"]}) as (port, _),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        await stream.send_all(associate_request(calling="CT1"))
        assert await receive_pdu(stream) == (3, bytes((0, 1, 1, 3)))
        assert await receive_pdu(stream) is None


@pytest.mark.parametrize(
    "raw",
    [
        {"listen": "nowhere"},
        {"ae_title": "SEVENTEEN_LETTERS"},
        {"max_associations": 0},
        {"max_pdu_bytes": 1 << 30},
        {"calling_ae_titles": {"CT1": ["10.0.0.300"]}},
        {"listening": "127.0.0.1:104"},
    ],
)
def test_wrong_settings_are_named(raw):
    with pytest.raises(SettingsError, match=next(iter(raw)) if "calling" not in str(raw) else "300"):
        parse(ScpSettings, raw, source="agent.toml")


async def test_port_in_use_is_a_settings_error(tmp_path):
    async with open_scp(tmp_path) as (port, spool):
        with pytest.raises(SettingsError, match="cannot listen"):
            await serve_scp(ScpSettings(listen=f"127.0.0.1:{port}"), spool)


async def test_a_pdu_that_inflates_for_seconds_holds_up_nobody_else(tmp_path):
    """20 MB of empty items from a few KB: below every limit of ratio and depth, and long to walk."""
    item = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0xFFFFFFFF, 0xFFFE, 0xE00D, 0)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = squeeze.compress(struct.pack("<HH2sHL", 9, 0x1001, b"SQ", 0, 0xFFFFFFFF) + item * (20_000_000 // len(item)))
    body += squeeze.flush()
    pauses, deflated = [], [(CT, [DEFLATED_LITTLE])]

    async def tick():
        while True:
            began_s = trio.current_time()
            await trio.sleep(0.001)
            pauses.append(trio.current_time() - began_s)

    async with open_scp(tmp_path / "spool") as (port, spool), associated(port, contexts=deflated) as stream:
        await stream.send_all(data_pdu(pdv(store_request(), is_command=True)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            began_s = trio.current_time()
            await stream.send_all(data_pdu(pdv(body, is_last=True)))
            assert status_of(await receive_pdu(stream)) == 0xC000
            took_s = trio.current_time() - began_s
            nursery.cancel_scope.cancel()
        assert left_over(spool) == []
    assert took_s > 2 * max(pauses), (took_s, max(pauses))
    assert len(body) < 1 << 18
