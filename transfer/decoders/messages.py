"""What a child is asked and answers, and the memory that it shares with who asks. Pure.

    request   16 bytes: name of the encoding, filled up with zeros | 4 bytes: rows | 4 bytes: columns
              | 1 byte: components | 1 byte: bytes a sample | 4 bytes: length of the stored strip
    answer    1 byte: 0 decoded, 1 corrupt | text: what is wrong

All numbers are little endian. The memory has the stored strip at 0, and the decoded one at `STRIP_BYTES_MAX`. The
forker is asked for one thing at a time, the number of a child with each; its answer is empty when it could not.

    start   "S" | 4 bytes: number, with two descriptors: the child's end of its channel, its memory    answer: "S"
    end     "E" | 4 bytes: number                                       answer: "E" | 4 bytes: how it ended, as wait(2)
"""

import signal
import struct
from typing import Final

from transfer.encodings.codecs import Form
from transfer.encodings.container import STRIP_BYTES_MAX

_REQUEST: Final = struct.Struct("<16sLLBBL")
REQUEST_BYTES: Final = _REQUEST.size
ANSWER_BYTES_MAX: Final = 200
MEMORY_BYTES: Final = 2 * STRIP_BYTES_MAX
DECODED: Final = b"\0"
CORRUPT: Final = b"\1"

ORDER: Final = struct.Struct("<cL")
STATUS: Final = struct.Struct("<cl")
START, END = b"S", b"E"

EXIT_NO_MEMORY: Final = 3


def encode_request(encoding: str, form: Form, stored_bytes: int) -> bytes:
    """Return the request for a strip of `form`."""
    return _REQUEST.pack(encoding.encode(), *form, stored_bytes)


def decode_request(request: bytes) -> tuple[str, Form, int]:
    """Return encoding, form and length of the stored strip."""
    name, rows, columns, components, sample_bytes, stored_bytes = _REQUEST.unpack(request)
    return name.rstrip(b"\0").decode(), Form(rows, columns, components, sample_bytes), stored_bytes


def corrupt(text: str) -> bytes:
    """Return the answer that says what is wrong."""
    return CORRUPT + text.encode()[: ANSWER_BYTES_MAX - 1]


def said(answer: bytes) -> str:
    """Return what an answer says is wrong: whatever a child sends, one line that can be printed."""
    text = answer[1:ANSWER_BYTES_MAX].decode(errors="replace")
    return "".join(each if each.isprintable() else " " for each in text)


def how_it_ended(status: int, cpu_s: int) -> str:
    """Say in words what wait(2) says."""
    ended_by = status & 0x7F
    if ended_by == signal.SIGPROF:
        return f"more than {cpu_s} s of processor time"
    if ended_by:
        return signal.strsignal(ended_by) or f"signal {ended_by}"
    code = status >> 8 & 0xFF
    return "no memory within its limit" if code == EXIT_NO_MEMORY else f"exit code {code}"
