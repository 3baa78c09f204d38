"""A child: decodes one strip after the other into the memory that it shares, until its channel ends.

Forked with the libraries loaded. A strip that takes more than `CPU_S` of processor time ends the process by SIGPROF,
one that needs more memory than it may have by an exit code; both as a fault in a library would. Refuses to do:
anything with a file, hashing, keeping anything from one strip to the next.
"""

import mmap
import os
import signal
import socket
from typing import Final, Never

from transfer.decoders.confinement import confine
from transfer.decoders.messages import (
    DECODED,
    EXIT_NO_MEMORY,
    MEMORY_BYTES,
    REQUEST_BYTES,
    corrupt,
    decode_request,
)
from transfer.encodings.codecs import load_codec
from transfer.encodings.container import STRIP_BYTES_MAX
from transfer.errors import CorruptError

CPU_S: Final = 5  # a strip of 2 MiB takes at most a tenth of a second
CHILD_BYTES: Final = 96 << 20  # above what the libraries take; a strip of 2 MiB took 17 MB, with any encoding


def run(channel: int, memory: int, forker: int) -> Never:
    """Be a child of the process `forker`, with the descriptors of its channel and of its memory."""
    code = 1
    try:
        mapped = mmap.mmap(memory, MEMORY_BYTES)
        confine(channel, memory_bytes=CHILD_BYTES, forker=forker)
        serve(socket.socket(fileno=channel), memoryview(mapped))
        code = 0
    except MemoryError:
        os._exit(EXIT_NO_MEMORY)  # here, where the channel is still open: its end would be taken for this process's
    finally:
        os._exit(code)


def serve(channel: socket.socket, memory: memoryview) -> None:
    """Answer requests until there are no more."""
    stored, given = memory[:STRIP_BYTES_MAX], memory[STRIP_BYTES_MAX:]
    while request := channel.recv(REQUEST_BYTES):
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        answer = _decode(request, stored, given)
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.send(answer)


def _decode(request: bytes, stored: memoryview, given: memoryview) -> bytes:
    encoding, form, stored_bytes = decode_request(request)
    try:
        strip = load_codec(encoding).decode(stored[:stored_bytes], form)
    except CorruptError as error:
        return corrupt(error.message)
    given[: strip.nbytes] = strip.data.cast("B")
    return DECODED
