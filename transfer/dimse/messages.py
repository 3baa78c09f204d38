"""From presentation data values to DIMSE messages (PS3.7 6.3.1, PS3.8 annex E).

A message is a command set, put together here (it is small), and perhaps a data set, whose fragments are handed on as
they arrive and never put together. Refuses to do: messages that interleave, contexts that were not agreed.
"""

from collections.abc import Collection

import msgspec

from transfer.dimse.commands import MAX_COMMAND_BYTES, CommandField, Request, decode_request
from transfer.dimse.pdu import Pdv
from transfer.errors import ProtocolError


class RequestBegun(msgspec.Struct, frozen=True):
    """A whole command set; when it says so, `DataFragment`s of the same context follow, up to the last."""

    context_id: int
    request: Request


class DataFragment(msgspec.Struct, frozen=True):
    """The next bytes of the data set of the message that was begun."""

    data: memoryview
    is_last: bool


class MessageReader:
    """Takes the data values of one association in their order; `agreed` are its accepted context ids."""

    def __init__(self, agreed: Collection[int]) -> None:
        self._agreed = agreed
        self._command = bytearray()
        self._context_id = 0  # of the message that is under way, 0 between messages
        self._in_data = False

    def take(self, pdv: Pdv) -> RequestBegun | DataFragment | None:
        """Take one value; None when it was a part of a command set, or a cancel, to which nothing is answered.

        Raises:
            ProtocolError: a context that was not agreed or is not this message's, data where a command must be or
                the reverse, a command set that is too long or wrong.
        """
        if pdv.context_id not in self._agreed or self._context_id not in (0, pdv.context_id):
            raise ProtocolError("data on a presentation context that was not agreed, or inside another's message")
        if pdv.is_command is self._in_data:
            raise ProtocolError("a command fragment inside a data set, or the reverse")
        self._context_id = pdv.context_id
        return self._take_data(pdv) if self._in_data else self._take_command(pdv)

    def _take_data(self, pdv: Pdv) -> DataFragment:
        if pdv.is_last:
            self._context_id, self._in_data = 0, False
        return DataFragment(pdv.fragment, pdv.is_last)

    def _take_command(self, pdv: Pdv) -> RequestBegun | None:
        if len(self._command) + len(pdv.fragment) > MAX_COMMAND_BYTES:
            raise ProtocolError(f"command set longer than {MAX_COMMAND_BYTES} bytes")
        self._command += pdv.fragment
        if not pdv.is_last:
            return None
        request = decode_request(bytes(self._command))
        self._command.clear()
        self._in_data = request.has_data_set
        if not self._in_data:
            self._context_id = 0
        if request.command_field == CommandField.C_CANCEL_RQ:
            return None
        return RequestBegun(pdv.context_id, request)
