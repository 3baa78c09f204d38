"""The pool: has strips decoded by children, one at a time each, and starts a new child for one that ended.

A thread that wants a strip decoded waits for a child that is free. A child that ends, or does not answer for
`ANSWER_S`, costs the object whose strip it had: that is `corrupt`, and one log line. The next strip has a new child at
once; when several in a row have ended, only after a rest, and meanwhile images are refused as `busy` where no other
child is there. Refuses to do: trying a strip twice.
"""

import contextlib
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from mmap import mmap
from threading import Condition
from typing import Final

from transfer.decoders.child import CPU_S
from transfer.decoders.link import FORKER, ForkerLink
from transfer.decoders.messages import (
    ANSWER_BYTES_MAX,
    DECODED,
    MEMORY_BYTES,
    encode_request,
    how_it_ended,
    said,
)
from transfer.encodings import IMAGE_ENCODINGS, Decoder, ImageDecoder, get_encoding, open_decoder_here
from transfer.encodings.codecs import Form
from transfer.encodings.container import STRIP_BYTES_MAX
from transfer.errors import BusyError, CorruptError, CrashedError
from transfer.log import get_logger

ANSWER_S: Final = 30.0  # for `CPU_S` of processor time, on a machine with other work
ENDED_AT_ONCE: Final = 3  # so many in a row without a rest
REST_S, REST_S_MAX = 0.1, 5.0
log = get_logger()


def rest_s(ended: int) -> float:
    """Return how long no new child is started after so many have ended in a row."""
    return 0.0 if ended <= ENDED_AT_ONCE else min(REST_S_MAX, REST_S * 2.0 ** (ended - ENDED_AT_ONCE - 1))


class _ChildEndedError(Exception):
    """It gave no answer."""


class _Worker:
    """One place for a child; for one thread at a time."""

    def __init__(self, number: int, link: ForkerLink) -> None:
        self.number = number
        self.channel: socket.socket | None = None  # None: no child
        self.ended = 0  # in a row
        self.due_s = 0.0  # not started before that
        self._link = link
        self._memory = os.memfd_create("strip", os.MFD_CLOEXEC)
        os.ftruncate(self._memory, MEMORY_BYTES)
        self._mapped = mmap(self._memory, MEMORY_BYTES)
        view = memoryview(self._mapped)
        self._stored, self._given = view[:STRIP_BYTES_MAX], view[STRIP_BYTES_MAX:]

    def start(self) -> None:
        """Start a child.

        Raises:
            CrashedError: it does not start.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._link.start(self.number, theirs, self._memory)
        except BaseException:
            ours.close()
            raise
        ours.settimeout(ANSWER_S)
        self.channel = ours

    def ask(self, encoding: str, stored: memoryview, form: Form) -> bytes:
        """Return the answer; `strip` then has what was decoded.

        Raises:
            _ChildEndedError: there is none.
            CrashedError: no child can be started.
        """
        self._stored[: stored.nbytes] = stored
        request = encode_request(encoding, form, stored.nbytes)
        if not self._sent(request):  # ended while it had nothing to do, which is nobody's fault
            self.end()
            if not self._sent(request):
                raise _ChildEndedError
        try:
            answer = self.channel.recv(ANSWER_BYTES_MAX) if self.channel is not None else b""
        except OSError as error:
            raise _ChildEndedError from error
        if not answer:
            raise _ChildEndedError
        self.ended = 0
        return answer

    def _sent(self, request: bytes) -> bool:
        if self.channel is None:
            self.start()
        try:
            return self.channel is not None and self.channel.send(request) > 0
        except OSError:
            return False

    def strip(self, length: int) -> bytes:
        """Return a copy of what was decoded: a child that is no longer ours could change it under a hash."""
        return bytes(self._given[:length])

    def end(self) -> int:
        """End the child and return its status as wait(2) gives it."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        return self._link.end(self.number)

    def rest(self) -> None:
        """Note one more child that ended."""
        self.ended += 1
        self.due_s = time.monotonic() + rest_s(self.ended)

    def close(self) -> None:
        """Let go of channel and memory."""
        if self.channel is not None:
            self.channel.close()
        self._stored.release()
        self._given.release()
        os.close(self._memory)


class Pool:
    """As many children as `count`; for any thread. Made by `open_decoders`; `forker` is for tests."""

    def __init__(self, count: int, forker: str = FORKER) -> None:
        self._link = ForkerLink(forker)
        self._workers = [_Worker(number, self._link) for number in range(count)]
        self._free = deque(self._workers)  # those without a child at the left
        self._changed = Condition()

    def begin(self) -> None:
        """Start the forker, which loads the libraries meanwhile; children start when they are wanted."""
        self._link.open()

    def start(self) -> None:
        """Start all children, so that the first image does not wait; before anything is decoded (blocks).

        Raises:
            CrashedError: they do not start.
        """
        for worker in self._workers:
            worker.start()

    def open_decoder(self, encoding: str, size_bytes: int, object_id: str) -> Decoder:
        """Return a decoder for one object; see `transfer.encodings.OpenDecoder`."""
        if encoding in IMAGE_ENCODINGS:
            return ImageDecoder(encoding, size_bytes, partial(self.decode, object_id))
        return get_encoding(encoding).decoder(size_bytes)

    def decode(self, object_id: str, encoding: str, stored: memoryview, form: Form) -> memoryview:
        """Return the strip of `form` that was stored as `stored` (blocks).

        Raises:
            CorruptError: it is none, or the child that had it ended.
            BusyError: there is no child now.
        """
        worker = self._take()
        try:
            answer = worker.ask(encoding, stored, form)
            if answer != DECODED:
                raise CorruptError(f"{object_id}: {said(answer)}")
            return memoryview(worker.strip(form.rows * form.columns * form.components * form.sample_bytes))
        except _ChildEndedError as error:
            reason = how_it_ended(worker.end(), CPU_S)
            worker.rest()
            log.error("decoder_ended", object_id=object_id, encoding=encoding, reason=reason, in_a_row=worker.ended)
            raise CorruptError(f"{object_id}: the process that decoded it ended: {reason}; send it again") from error
        except CrashedError as error:
            worker.rest()
            log.error("decoder_not_started", reason=error.message, in_a_row=worker.ended)
            raise BusyError(f"{object_id}: {error.message}; try again") from error
        finally:
            self._give_back(worker)

    def _take(self) -> _Worker:
        """Wait for a place and return it.

        Raises:
            BusyError: no child, and none may be started yet.
        """
        with self._changed:
            while not self._free:
                self._changed.wait()
            worker = self._free.pop()
            if worker.channel is None and time.monotonic() < worker.due_s:
                self._free.appendleft(worker)
                raise BusyError("the processes that decode images have ended too often; try again")
            return worker

    def _give_back(self, worker: _Worker) -> None:
        with self._changed:
            if worker.channel is None:
                self._free.appendleft(worker)
            else:
                self._free.append(worker)
            self._changed.notify()

    def close(self) -> None:
        """End all children; nothing is decoded any more."""
        self._link.close()
        for worker in self._workers:
            worker.close()


class Here:
    """In place of a pool where there is none (other systems than Linux): images are decoded in this process."""

    open_decoder = staticmethod(open_decoder_here)

    def start(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def open_decoders(count: int) -> Iterator[Pool | Here]:
    """Have images decoded by `count` children, while open; the libraries are being loaded when this returns.

    Raises:
        CrashedError: the forker does not start.
    """
    if sys.platform != "linux":
        yield Here()
        return
    pool = Pool(count)
    try:
        pool.begin()
        yield pool
    finally:
        pool.close()
