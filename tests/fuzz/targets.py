"""What is fuzzed, and what must hold: an answer or an error of ours, the same whole and in pieces, nothing invented."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.scp import Conversation, ScpSettings, Server
from nodes import admission
from nodes.trust import Trusted
from tests.dimse.peer import RELEASE, associate_request, data_pdu, elements, pdv
from tests.fuzz.http import open_http
from tests.fuzz.texts import TEXTS, open_images
from transfer import heartbeat, receipts, tickets
from transfer.dicom import DataSetCheck, check_complete, read_file_meta, read_identity
from transfer.dicom.pixels import locate_pixels
from transfer.dimse.association import Association, Ended, ReleaseRequested
from transfer.dimse.pdu import AssociateRequest
from transfer.errors import FascicleError, TruncatedError, UnauthorisedError
from transfer.protocol.connection import ServerConnection
from transfer.protocol.frames import CONTROL_BYTES_MAX, PAYLOAD_BYTES_MAX
from transfer.protocol.messages import Hello, Stored, Welcome

KEY = Ed25519PrivateKey.from_private_bytes(b"fuzz" * 8)
TRUSTED = Trusted.of_key(KEY.public_key())
Target = Callable[[bytes], None]
CREDIT_BYTES = 1 << 20
ASSOCIATE = associate_request()
PDV_BYTES_MAX = 16_000


def frames(data: bytes) -> None:
    """A node's side of a flow: the same frames and the same end, in one piece and in small ones."""
    whole = _converse(data, len(data) or 1)
    assert _converse(data, 1 + len(data) // 7) == whole
    for frame in whole[0]:
        assert len(frame) <= 2 * max(CONTROL_BYTES_MAX, PAYLOAD_BYTES_MAX)


def _converse(data: bytes, piece_bytes: int) -> tuple[list[str], str]:
    connection, found = ServerConnection(), list[str]()
    try:
        for start in range(0, len(data), piece_bytes):
            rest = memoryview(data)[start : start + piece_bytes]
            while rest:
                room = connection.reader.buffer()
                count = min(len(room), len(rest))
                room[:count] = rest[:count]
                connection.reader.received(count)
                rest = rest[count:]
                for frame in connection.frames():
                    found.append(repr(frame) if not hasattr(frame, "payload") else f"data {len(frame.payload)}")
                    if isinstance(frame, Hello):
                        connection.welcome(Welcome(1, "node-1", "disk", CREDIT_BYTES, 1 << 40))
        connection.end_of_stream()
    except FascicleError as error:
        return found, error.code
    return found, ""


def ticket(data: bytes) -> None:
    """Bytes as a ticket: only what the key signed counts; signed nonsense is refused as such, too."""
    body = data[: -tickets.SIGNATURE_BYTES]
    try:
        tickets.verify(data, KEY.public_key(), now_s=0.0)
        genuine = True
    except UnauthorisedError:
        genuine = False
    assert genuine == _is_signed(data, body)
    with contextlib.suppress(UnauthorisedError):  # a refusal is fine, any other error is found
        admission.admit(body + KEY.sign(tickets.CONTEXT + body), None, node_id="node-1", trusted=TRUSTED)


def _is_signed(data: bytes, body: bytes) -> bool:
    return data == body + KEY.sign(tickets.CONTEXT + body)  # Ed25519 is deterministic


def signed(data: bytes) -> None:
    """Bytes as receipts and as a heartbeat."""
    with contextlib.suppress(FascicleError):  # a refusal is fine, any other error is found
        receipts.verify(Stored(data, KEY.sign(receipts.CONTEXT + data)), KEY.public_key())
    with contextlib.suppress(FascicleError):  # as above
        heartbeat.verify(data, KEY.public_key())
    with contextlib.suppress(FascicleError):  # as above
        heartbeat.verify(data + KEY.sign(heartbeat.CONTEXT + data), KEY.public_key())


def dicom(data: bytes) -> None:
    """Bytes as a DICOM file: an identity or a refusal, the same in pieces; pixels only within the file."""
    whole = _outcome(lambda: check_complete(data))
    assert _outcome(lambda: _in_pieces(data)) == whole
    _outcome(lambda: read_identity(data))
    pixels = _outcome(lambda: locate_pixels(data))
    if not isinstance(pixels, str):
        assert 0 <= pixels.frame_bytes * pixels.frames <= pixels.length_bytes
        assert pixels.offset_bytes <= len(data)


def _in_pieces(data: bytes) -> Any:
    meta = read_file_meta(memoryview(data))
    if meta.data_set_offset == len(data):
        raise TruncatedError("no data set, which has no pieces either")
    check = DataSetCheck(meta.transfer_syntax_uid)
    step = 1 + len(data) // 5
    for start in range(meta.data_set_offset, len(data), step):
        check.feed(memoryview(data)[start : start + step])
    check.finish(meta.sop_class_uid)
    return check.identity(meta)


def _outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except FascicleError as error:
        return error.code


def pdu(data: bytes) -> None:
    """Bytes from a requestor, from its first on: events or one abort, the same in pieces."""
    whole = _events(data, len(data) or 1)
    assert _events(data, 1 + len(data) // 5) == whole


def _events(data: bytes, piece_bytes: int) -> list[str]:
    association, found = Association(max_pdu_bytes=16384), list[str]()
    for start in range(0, len(data), piece_bytes):
        association.feed(data[start : start + piece_bytes])
        while (event := association.next_event()) is not None:
            found.append(type(event).__name__)
            if isinstance(event, AssociateRequest):
                association.accept((), class_uid="1.2", version_name="X")
            elif isinstance(event, ReleaseRequested):
                association.release()
            elif isinstance(event, Ended):
                return found
    return found


class _Spool:
    """Keeps what was stored, so that it can be judged."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def begin(self, _: str) -> "_File":
        return _File(self)


class _File:
    def __init__(self, spool: _Spool) -> None:
        self._spool, self._data = spool, bytearray()

    async def write(self, buffer: Any) -> None:
        self._data += buffer

    async def finish(self) -> None:
        self._spool.kept.append(bytes(self._data))

    async def abandon(self) -> None:
        pass


def association(data: bytes) -> None:
    """Bytes after A-ASSOCIATE: whatever was kept is a whole data set, and was answered with success as often."""
    spool = _Spool()
    said = trio.run(_associate, data, spool)
    assert _successes(said) == len(spool.kept)
    for kept in spool.kept:
        check_complete(kept)


def _successes(said: bytes) -> int:
    """Return how many C-STORE-RSP with status 0000 are in what was said."""
    found, at = 0, 0
    while at + 6 <= len(said):
        kind, length = said[at], int.from_bytes(said[at + 2 : at + 6])
        if kind == 4:
            fields = elements(said[at + 12 : at + 6 + length])
            found += (fields[0x0100], fields[0x0900]) == (b"\x01\x80", b"\0\0")
        at += 6 + length
    return found


async def _associate(data: bytes, spool: _Spool) -> bytes:
    server, client = trio.testing.memory_stream_pair()
    said = bytearray()

    async def listen() -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the server hung up
            while piece := await client.receive_some(65536):
                said.extend(piece)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await client.send_all(ASSOCIATE + data)
            await client.send_eof()
            await Conversation(Server(ScpSettings(), spool), server, host="fuzz").run()
            await server.aclose()
    return bytes(said)


def message(data: bytes) -> None:
    """Bytes as a command set and a data set, each whole in its P-DATA: what is wrong is in them, not in the framing.

    The first two bytes say how long the command set is.
    """
    end = 2 + int.from_bytes(data[:2], "little")
    command, body = data[2:end][:PDV_BYTES_MAX], data[end:]
    parts = [body[at : at + PDV_BYTES_MAX] for at in range(0, len(body), PDV_BYTES_MAX)]
    said = [data_pdu(pdv(command, is_command=True))]
    said += [data_pdu(pdv(part, is_last=number == len(parts) - 1)) for number, part in enumerate(parts)]
    association(b"".join(said) + RELEASE)


TARGETS: dict[str, Target] = {
    "frames": frames,
    "ticket": ticket,
    "signed": signed,
    "dicom": dicom,
    "pdu": pdu,
    "association": association,
    "message": message,
    **TEXTS,
}
SHARES = {
    "frames": 24, "ticket": 8, "signed": 6, "dicom": 24, "pdu": 10, "association": 5, "message": 5, "image": 8,
    "audit": 4, "token": 4, "http": 2,
}  # of 100  # fmt: skip
OPENED = {"http": open_http, "image": open_images}  # those that need something that runs


@contextlib.contextmanager
def open_target(name: str) -> Iterator[Target]:
    """Have a target, and what it needs, for a while."""
    if name in OPENED:
        with OPENED[name]() as target:
            yield target
    else:
        yield TARGETS[name]


def chance_of(seed: int, name: str, part: int) -> random.Random:
    """Return the generator of one part of a target's inputs."""
    return random.Random(f"{seed} {name} {part}")
