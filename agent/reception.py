"""One instance while it arrives by C-STORE: to the spool as received, checked on the way, answered when durable.

The file is `part10_header` and then the data set, byte for byte. Status 0000 is given only after the spool says
durable, and only to a data set that parses to its end and is the instance that the command names (else C000, A900):
what is acknowledged is what `check_complete` takes later, so nothing acknowledged gets stuck. A data set that begins
with group 0002, whose use is a file's alone (PS3.5 7.1), is refused too: nobody could tell in the file where it begins.
After a failure the rest of the data set is let pass, and the failure is the answer. Refuses to do: PDUs, decoding, a
second copy in memory.
"""

from typing import Final, Protocol

import trio
from typing_extensions import Buffer

from transfer.dicom import DataSetCheck, part10_header
from transfer.dimse.commands import Request, Status
from transfer.errors import FascicleError, MismatchError, NotDicomError

INFLATING: Final = trio.CapacityLimiter(1)  # threads; each takes a share of the interpreter from all else
META_GROUP: Final = b"\x02\0"  # as `read_file_meta` reads it, whatever the data set's transfer syntax


class IncomingFile(Protocol):
    """A file of the spool while it is written."""

    async def write(self, buffer: Buffer, /) -> None:
        """Append; raises FullError, StorageError."""

    async def finish(self) -> object:
        """Return when the file is durable; raises FullError, StorageError."""

    async def abandon(self) -> None:
        """Leave nothing behind; does nothing after `finish`."""


class Spool(Protocol):
    """Where received instances become durable (`agent.spool`)."""

    async def begin(self, origin: str, /) -> IncomingFile:
        """Begin a file; raises FullError, StorageError."""


class Reception:
    """One instance. Call `begin`, then `take` for each fragment, then `finish`; in every other case `abandon`."""

    def __init__(self, request: Request, transfer_syntax_uid: str, calling_ae_title: str) -> None:
        self.request = request
        self.size_bytes = 0
        self._syntax = transfer_syntax_uid
        self._calling = calling_ae_title
        self._check = DataSetCheck(transfer_syntax_uid)
        self._first_bytes = bytearray()
        self._file: IncomingFile | None = None
        self._failure: FascicleError | None = None

    async def begin(self, spool: Spool, origin: str) -> None:
        """Open the file and write what stands before the data set."""
        try:
            header = part10_header(
                self.request.sop_class_uid, self.request.sop_instance_uid, self._syntax, self._calling
            )
            self._file = await spool.begin(origin)
            await self._file.write(header)
        except FascicleError as error:
            await self._fail(error)

    async def take(self, fragment: memoryview) -> None:
        """Check and write the next bytes of the data set."""
        self.size_bytes += len(fragment)
        if self._file is None:
            return
        self._first_bytes += fragment[: len(META_GROUP) - len(self._first_bytes)]
        try:
            if self._first_bytes == META_GROUP:
                raise NotDicomError("a data set that begins with file meta information")
            if self._check.inflates:  # elsewhere: one PDU may hold seconds of work, and all the agent would stand still
                await trio.to_thread.run_sync(self._check.feed, fragment, limiter=INFLATING)
            else:
                self._check.feed(fragment)
            await self._file.write(fragment)
        except FascicleError as error:
            await self._fail(error)

    async def finish(self) -> tuple[int, str]:
        """Return status and comment of the response; after status 0000 the instance is durable."""
        if self._file is not None:
            try:
                self._check_end()
                await self._file.finish()
            except FascicleError as error:
                await self._fail(error)
        if self._failure is not None:
            return self._failure.dimse_status, self._failure.message
        return Status.SUCCESS, ""

    async def abandon(self) -> None:
        """Forget what was received."""
        file, self._file = self._file, None
        if file is not None:
            await file.abandon()

    def _check_end(self) -> None:
        self._check.finish(self.request.sop_class_uid)
        identity = self._check.identity()
        if identity.sop_instance_uid != self.request.sop_instance_uid:
            raise MismatchError("data set has another SOP instance UID than its command")
        if identity.sop_class_uid != self.request.sop_class_uid:
            raise MismatchError("data set has another SOP class UID than its command")

    async def _fail(self, error: FascicleError) -> None:
        self._failure = error
        await self.abandon()
