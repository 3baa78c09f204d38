"""Writes the corpus's beginnings (tests/fuzz/corpus/TARGET/NAME): valid inputs of every shape; the rest was found.

`python -m tests.fuzz.seeds` writes them again; files whose names begin with `found-` are kept.
"""

import json
from pathlib import Path

from gateway import trail
from tests.dicom.build import BIG, DEFLATED, IMPLICIT, element, explicit_image, file, implicit_image, item
from tests.dicom.test_identity import FRAGMENTS, deflate, nested
from tests.dimse.peer import ABORT, RELEASE, associate_request, data_pdu, echo_request, pdv, store_request
from tests.encodings.images import Image
from tests.fuzz import mutate, texts
from tests.fuzz.targets import KEY
from tests.fuzz.texts import IMAGE_HEAD, NAMES
from tests.gateway.routes import routes
from transfer import heartbeat, receipts, tickets
from transfer.encodings import IMAGE_ENCODINGS
from transfer.heartbeat import Heartbeat
from transfer.joining import Token, encode_token
from transfer.objects import Identity
from transfer.protocol.frames import LAST, encode_control, encode_data_header
from transfer.protocol.messages import Bye, Check, Get, Hello, Ping, Put, Reserve
from transfer.receipts import Receipt, ReceiptBatch
from transfer.tickets import Ticket, TicketNode

CORPUS = Path(__file__).parent / "corpus"
NODE = TicketNode("node-1", "127.0.0.1", 9001, "ab" * 32, "host-a")
TICKET = tickets.sign(Ticket("t-1", "ws-1", "cd" * 32, ["put", "get"], [NODE, NODE], 2, 1 << 40, 1000.0, 3), KEY)
HELLO = encode_control(Hello(1, TICKET))
PUT = Put(bytes(range(32)), 5, "raw", False, 1)


def frames() -> dict[str, bytes]:
    body = encode_data_header(0, 5, LAST) + b"abcde"
    return {
        "put": HELLO + encode_control(PUT) + body + encode_control(Bye()),
        "parts": HELLO
        + encode_control(PUT)
        + encode_data_header(0, 2)
        + b"ab"
        + encode_data_header(2, 3, LAST)
        + b"cde",
        "get": HELLO + encode_control(Get(bytes(32))) + encode_control(Ping(7)),
        "check": HELLO + encode_control(Check([bytes(32)] * 9, True)) + encode_control(Reserve("t-1", 1 << 30)),
        "large": HELLO + encode_control(PUT) + encode_data_header(0, 100_000) + bytes(100_000),
    }


def signed() -> dict[str, bytes]:
    identity = Identity(sop_instance_uid="1.2.3", patient_name="Doe^Jane", study_date="20260101")
    batch = ReceiptBatch(
        "node-1", "disk", "t-1", [Receipt(bytes(32), 9, 5, "zstd", ["node-1", "node-2"], identity)] * 3
    )
    beat = Heartbeat("node-1", "disk", 1, 2, "127.0.0.1", 9001, "host-a", 1 << 40, 5, 6, 7)
    ends = receipts.sign(ReceiptBatch("node-1", "disk", "t-1", []), KEY).batch, heartbeat.sign(beat, KEY)[:-64]
    deep = [bytes([each[0] + 1]) + each[1:] + mutate.NEST for each in ends]  # one more element than there are fields
    return {
        "receipts": receipts.sign(batch, KEY).batch,
        "heartbeat": heartbeat.sign(beat, KEY),
        "nested_receipts": deep[0],
        "nested_heartbeat": deep[1],
    }


def dicom() -> dict[str, bytes]:
    tail = explicit_image()[:-76]
    return {
        "explicit": file(explicit_image()),
        "implicit": file(implicit_image(), IMPLICIT),
        "big": file(explicit_image(">"), BIG),
        "deflated": file(deflate(explicit_image()), DEFLATED),
        "nested": file(tail + nested(3) + nested(2, vr="UN") + FRAGMENTS),
        "colour": Image(samples=3, bits=8, stored=8, rows=5, columns=3, frames=2).encode(),
        "grey": Image().encode(),
        "directory": file(
            element(0x00041220, "SQ", item(element(0x00041500, "CS", b"A\\B "))), sop_class="1.2.840.10008.1.3.10"
        ),
    }


def pdu() -> dict[str, bytes]:
    return {
        "associate": associate_request(),
        "release": associate_request() + RELEASE,
        "echo": associate_request() + data_pdu(pdv(echo_request(), context_id=3, is_command=True)) + ABORT,
        "store": associate_request() + store() + RELEASE,
    }


def store(*, pieces: int = 1) -> bytes:
    data = explicit_image()
    step = -(-len(data) // pieces)
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    body = b"".join(data_pdu(pdv(part, is_last=number == len(parts) - 1)) for number, part in enumerate(parts))
    return data_pdu(pdv(store_request(), is_command=True)) + body


def association() -> dict[str, bytes]:
    return {
        "store": store() + RELEASE,
        "stores": store(pieces=3) + store() + RELEASE,
        "echo": data_pdu(pdv(echo_request(), context_id=3, is_command=True)) + RELEASE,
        "together": data_pdu(pdv(store_request(), is_command=True), pdv(explicit_image())),
    }


def message() -> dict[str, bytes]:
    def of(command: bytes, body: bytes) -> bytes:
        return len(command).to_bytes(2, "little") + command + body

    return {
        "store": of(store_request(), explicit_image()),
        "echo": of(echo_request(), b""),
        "other_instance": of(store_request("1.2.4"), explicit_image()),
        "many_sequences": of(store_request(), explicit_image()[:-76] + nested(4) + FRAGMENTS),
    }


def image() -> dict[str, bytes]:
    images = {
        "grey": Image(rows=24, columns=20, signed=True),
        "colour": Image(rows=9, columns=11, samples=3, bits=8, stored=8, frames=2, behind=bytes(30)),
    }
    found = {}
    for kind, made in images.items():
        data = made.encode()
        for name in NAMES:
            head = IMAGE_HEAD.pack(NAMES.index(name), len(data))
            found[f"{kind}-{name}"] = head + IMAGE_ENCODINGS[name].encode(data)
    return found


def audit() -> dict[str, bytes]:
    head, lines = trail.START, []
    for number in range(3):
        entry = {"at": "2026-01-01T00:00:00Z", "event": "enrolled", "by": "admin-1", "name": f"ws-{number}"}
        head, line = trail.append(head, entry, texts.KEY)
        lines.append(line)
    return {"three": b"".join(lines), "one": lines[0], "anchor": str(head).encode()}


def token() -> dict[str, bytes]:
    made = Token(gateway="https://gateway.example.org:8443", authority_sha256="ab" * 32, role="node", secret="s" * 43)
    text = encode_token(made).encode()
    return {"token": text, "in_lines": text[:40] + b"\n" + text[40:]}


def http() -> dict[str, bytes]:
    def post(path: str, body: object) -> bytes:
        text = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        return head.encode() + text

    bodies = {
        "invite": {"name": "ct-9", "role": "workstation", "hosts": [], "valid_s": 900},
        "revoke": {"name": "nobody-9"},
        "rotate_keys": {"revoke_tickets": False},
        "announce": {"receipts": [{"batch": "AAAA", "signature": "AAAA"}]},
        "take_receipts": {"receipts": [{"batch": "AAAA", "signature": "AAAA"}]},
    }
    every = {}
    for method, path, operation in routes():
        target = path.replace("{transfer_id}", "t-1").replace("{path}", "nothing")
        if method == "POST":
            every[f"{operation}-post"] = post(target, bodies.get(operation, {}))
        else:
            name = f"{operation}-{method.lower()}{target.count('/')}"
            every[name] = f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    item_ = {"object_id": "ab" * 32, "size_bytes": 5, "name": "a/b.dcm"}
    return every | {
        "open": post("/api/v1/transfers", {"objects": 3, "bytes": 1000, "replicas": 1}),
        "offer": post("/api/v1/transfers/x/offer", {"objects": [item_, item_]}),
        "commit": post("/api/v1/transfers/x/commit", {"objects": 1, "merkle_root": "ab" * 32, "receipts": []}),
        "receipts": post("/api/v1/transfers/x/receipts", {"receipts": [{"batch": "AAAA", "signature": "AAAA"}]}),
        "enrol": post("/api/v1/enrolments", {"secret": "x", "request": "y", "public_key": "", "proof": ""}),
        "reads": post("/api/v1/reads", {"rights": ["get", "check"]}),
        "objects": b"GET /api/v1/objects?study=1.2.3&limit=5&after=ab HTTP/1.1\r\nHost: x\r\n\r\n",
        "events": b"GET /api/v1/events?after=0&limit=10 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
        "chunked": b"POST /api/v1/transfers HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "open_api": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    }


SEEDS = {
    "frames": frames, "ticket": lambda: {"two-nodes": TICKET}, "signed": signed, "dicom": dicom, "pdu": pdu,
    "association": association, "message": message, "image": image, "audit": audit, "token": token, "http": http,
}  # fmt: skip


def read(target: str) -> list[bytes]:
    """Return the corpus of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


if __name__ == "__main__":
    for target, make in SEEDS.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in make().items():
            (CORPUS / target / name).write_bytes(data)
