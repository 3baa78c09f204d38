"""Known failures of the field, on the wire: one test each, named after it; what is asserted is what happens."""

import gzip
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.dicom.build import FIELDS, IMAGE, element, even, explicit_image
from tests.dimse.peer import (
    associated,
    data_pdu,
    left_over,
    open_scp,
    pdv,
    receive_pdu,
    status_of,
    store_request,
)
from tests.gateway.kit import TRANSFERS, Gateway, Identities, settings
from transfer.dicom import check_complete
from transfer.dimse.association import Association
from transfer.errors import FullError, StorageError

ABORTED = 7
SUCCESS = 0


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture(scope="module")
def gateway(identities: Identities, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(identities, settings(identities, tmp_path_factory.mktemp("gateway")))
    yield running
    running.stop()


def resident_bytes() -> int:
    fields = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in fields if line.startswith("VmRSS"))


async def store(stream: trio.SocketStream, data_set: bytes, request: bytes) -> int:
    await stream.send_all(data_pdu(pdv(request, is_command=True)) + data_pdu(pdv(data_set)))
    return status_of(await receive_pdu(stream))


HOSTILE = ["../../x", "/tmp/x", "a/../../b", "..\\..\\x", "x;rm", "|id"]


@pytest.mark.parametrize("value", HOSTILE)
async def test_cve_2022_2119_uids_of_a_c_store_never_become_a_path(tmp_path: Path, value: str) -> None:
    fields = [(tag, vr, even(value) if vr == "UI" and tag != 0x00080016 else old) for tag, vr, old in FIELDS]
    data_set = b"".join(element(*each) for each in [*fields, *IMAGE[len(FIELDS) :]])
    request = store_request("123456789012"[: len(value)]).replace(b"123456789012"[: len(value)], value.encode())
    async with open_scp(tmp_path / "a" / "spool") as (port, spool), associated(port) as stream:
        status = await store(stream, data_set, request)
        kept = left_over(spool)
        assert (status == SUCCESS) == (len(kept) == 1)
        assert all(name.replace("-", "").isalnum() for name in kept)  # made of a clock and of chance
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["spool"]


@pytest.mark.parametrize("kind", range(1, 8))
async def test_pynetdicom_issue_1086_a_pdu_of_4_gib_is_refused_by_its_header(tmp_path: Path, kind: int) -> None:
    before_bytes = resident_bytes()
    async with open_scp(tmp_path) as (port, spool), associated(port) as stream:
        await stream.send_all(bytes([kind, 0]) + b"\xff\xff\xff\xff" + bytes(100))
        with trio.fail_after(5):  # not after 4 GiB
            assert (await receive_pdu(stream))[0] == ABORTED
            assert await receive_pdu(stream) is None
        assert left_over(spool) == []
    assert resident_bytes() - before_bytes < 64 << 20
    association = Association(max_pdu_bytes=16384)
    association.feed(bytes([1, 0]) + b"\xff\xff\xff\xff")
    association.next_event()
    assert len(association._buffer) <= 6


def test_a_gzip_bomb_in_a_request_is_never_inflated(gateway: Gateway) -> None:
    bomb = gzip.compress(b" " * (256 << 20), 9)
    assert len(bomb) < 1 << 20
    before_bytes, began_s = resident_bytes(), time.monotonic()
    for encoding in ("gzip", "deflate", "br", "zstd"):
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        response = gateway.client("ws-1").post(TRANSFERS, content=bomb, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "protocol")
    assert resident_bytes() - before_bytes < 64 << 20
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("length", [1 << 25, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 64, 10**30])
def test_a_huge_content_length_is_refused_before_its_body(
    gateway: Gateway, identities: Identities, length: int
) -> None:
    before_bytes = resident_bytes()
    raw = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    with identities.context("ws-1").wrap_socket(raw, server_hostname="127.0.0.1") as flow:
        kind = "Content-Type: application/json\r\n"
        head = f"POST {TRANSFERS} HTTP/1.1\r\nHost: x\r\n{kind}Content-Length: {length}\r\n\r\n"
        flow.sendall(head.encode() + b" ")
        answer = b""
        try:
            while piece := flow.recv(65536):
                answer += piece
                if b'"retryable"' in answer:
                    break
        except (ConnectionError, ssl.SSLError):
            pass
    assert answer[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 400"), answer
    assert resident_bytes() - before_bytes < 64 << 20
    assert gateway.client(None).get("/health").text == "ok\n"


@pytest.mark.parametrize("word", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
                                  b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\0\x01"])  # fmt: skip
async def test_an_http_request_on_the_dicom_port_is_aborted_and_the_next_peer_is_served(
    tmp_path: Path, word: bytes
) -> None:
    async with open_scp(tmp_path) as (port, spool):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            with trio.fail_after(5):
                await stream.send_all(word)
                assert (await receive_pdu(stream))[0] == ABORTED
                assert await receive_pdu(stream) is None
        async with associated(port) as stream:
            assert await store(stream, explicit_image(), store_request()) == SUCCESS
        assert len(left_over(spool)) == 1


async def test_dcm4che_issue_1103_the_same_uid_from_two_senders_at_once_keeps_both(tmp_path: Path) -> None:
    """Two different images of one UID, sent in turns of a few bytes: each success stands for its own bytes."""
    first, second = explicit_image(), explicit_image()[:-64] + bytes(reversed(range(64)))
    assert first != second
    async with (
        open_scp(tmp_path) as (port, spool),
        associated(port, calling="CT1") as one,
        associated(port, calling="CT2") as two,
    ):
        for stream in (one, two):
            await stream.send_all(data_pdu(pdv(store_request("1.2.3"), is_command=True)))
        for at in range(0, len(first), 40):
            for stream, data in ((one, first), (two, second)):
                await stream.send_all(data_pdu(pdv(data[at : at + 40], is_last=at + 40 >= len(data))))
        assert [status_of(await receive_pdu(stream)) for stream in (one, two)] == [SUCCESS, SUCCESS]
        files = [path.read_bytes() for path in spool.ready.iterdir()]
    assert {check_complete(data).sop_instance_uid for data in files} == {"1.2.3"}
    assert {data[-64:] for data in files} == {first[-64:], second[-64:]}
    assert len(files) == 2


class FailingSpool:
    """A disk that fails at one step; nothing but the failure."""

    def __init__(self, step: str, error: Exception) -> None:
        self.step, self.error = step, error

    async def begin(self, origin: str) -> "FailingSpool":
        self._fail("begin")
        return self

    async def write(self, buffer: object) -> None:
        self._fail("write")

    async def finish(self) -> None:
        self._fail("finish")

    async def abandon(self) -> None:
        pass

    def _fail(self, step: str) -> None:
        if step == self.step:
            raise self.error


@pytest.mark.parametrize("step", ["begin", "write", "finish"])
@pytest.mark.parametrize(("error", "wanted"), [(StorageError("the disk failed"), 0x0110), (FullError("full"), 0xA700)])
async def test_success_is_never_reported_for_a_failed_store(
    tmp_path: Path, step: str, error: Exception, wanted: int
) -> None:
    async with open_scp(tmp_path, spool=FailingSpool(step, error)) as (port, _), associated(port) as stream:
        for _ in range(3):
            assert await store(stream, explicit_image(), store_request()) == wanted


async def test_success_is_never_reported_for_a_failed_store_by_a_fault_of_ours(tmp_path: Path) -> None:
    spool = FailingSpool("finish", ZeroDivisionError())
    async with open_scp(tmp_path, spool=spool) as (port, _), associated(port) as stream:
        await stream.send_all(data_pdu(pdv(store_request(), is_command=True)) + data_pdu(pdv(explicit_image())))
        assert await receive_pdu(stream) is None  # the association ends without a word; the sender tries again
