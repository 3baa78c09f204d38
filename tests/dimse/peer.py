"""A requestor for tests: PDUs from pynetdicom's own encoders, commands from pydicom's, and the SCP on a free port."""

import contextlib
import io
import struct

import trio
from pydicom.dataset import Dataset
from pydicom.filewriter import write_dataset
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from agent.scp import ScpSettings, serve_scp
from agent.spool import open_spool
from tests.dicom.build import CT, EXPLICIT, IMPLICIT

VERIFICATION = "1.2.840.10008.1.1"


def associate_request(contexts=((CT, [EXPLICIT, IMPLICIT]), (VERIFICATION, [IMPLICIT])), *, maximum=16384,
                      called="FASCICLE", calling="PEER"):  # fmt: skip
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.called_ae_title, primitive.calling_ae_title = called, calling
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received = maximum
    implementation.implementation_class_uid = "1.2.3"
    primitive.user_information = [longest, implementation]
    primitive.presentation_context_definition_list = []
    for number, (abstract, transfer) in enumerate(contexts):
        context = build_context(abstract, transfer)
        context.context_id = 2 * number + 1
        primitive.presentation_context_definition_list.append(context)
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def command(**values):
    data_set = Dataset()
    data_set.update({})
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return encode_group(data_set)


def encode_group(data_set):
    out = io.BytesIO()
    out.is_little_endian, out.is_implicit_VR = True, True
    from pydicom.filebase import DicomIO

    file = DicomIO(out)
    file.is_little_endian, file.is_implicit_VR = True, True
    write_dataset(file, data_set)
    body = out.getvalue()
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def store_request(instance="1.2.3", sop_class=CT, *, message_id=1, data_set_type=0):
    return command(AffectedSOPClassUID=sop_class, CommandField=1, MessageID=message_id, Priority=0,
                   CommandDataSetType=data_set_type, AffectedSOPInstanceUID=instance)  # fmt: skip


def echo_request(message_id=1):
    return command(AffectedSOPClassUID=VERIFICATION, CommandField=0x30, MessageID=message_id, CommandDataSetType=0x0101)


def pdv(fragment, *, context_id=1, is_command=False, is_last=True):
    return struct.pack(">LBB", len(fragment) + 2, context_id, is_command | is_last << 1) + fragment


def pdu(kind, body):
    return struct.pack(">BxL", kind, len(body)) + body


def data_pdu(*pdvs):
    return pdu(4, b"".join(pdvs))


RELEASE, ABORT = pdu(5, bytes(4)), pdu(7, bytes(4))


async def receive_pdu(stream):
    """Return type and body of the next PDU, None at the end of the stream."""
    head = await receive_exactly(stream, 6)
    if head is None:
        return None
    kind, length = struct.unpack(">BxL", head)
    return kind, await receive_exactly(stream, length)


async def receive_exactly(stream, size):
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            assert not data
            return None
        data += more
    return data


def status_of(answer):
    """Return the status of the response that a P-DATA-TF holds."""
    kind, body = answer
    assert kind == 4
    return int.from_bytes(elements(body[6:])[0x0900], "little")


def elements(data):
    found, at = {}, 0
    while at < len(data):
        _, number, length = struct.unpack_from("<HHL", data, at)
        found[number] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found


@contextlib.asynccontextmanager
async def open_scp(folder, *, reserve_bytes=0, spool=None, **settings):
    """Serve on a free port with the agent's real spool; yields port and spool."""
    settings = ScpSettings(**{"listen": "127.0.0.1:0", "artim_s": 5, "idle_timeout_s": 20} | settings)
    async with open_spool(folder, reserve_bytes=reserve_bytes) as real, trio.open_nursery() as nursery:
        listener = await nursery.start(serve_scp, settings, spool or real)
        yield listener.socket.getsockname()[1], real
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def associated(port, **request):
    """A raw stream on which an association was accepted."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(associate_request(**request))
        kind, _ = await receive_pdu(stream)
        assert kind == 2
        yield stream


def left_over(spool):
    return sorted(path.name for folder in (spool.incoming, spool.ready) for path in folder.iterdir())
