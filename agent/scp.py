"""The agent's C-STORE and C-ECHO SCP: associations over TCP, every instance into the spool before it is answered.

One task per connection. Whoever is over `max_associations`, or over what one address may have of them, is rejected
(transient, local limit exceeded). Connections that have not asked for an association wait in a lobby of their own
(`transfer.doors`), bounded by ARTIM and in number: the oldest gives way, and no association is refused because of them.
A breach of the protocol gets one A-ABORT and the end. One log line per association, without anything from data sets.
Refuses to do: TLS, other services, knowing what becomes of the spool.
"""

import math
import traceback
from typing import Final

import trio

from agent.admission import ScpSettings, judge
from agent.reception import IncomingFile, Reception, Spool
from transfer import addresses, descriptors
from transfer.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from transfer.dimse.association import Association, Ended, Event, ReleaseRequested, State
from transfer.dimse.commands import CommandField, Request, Status, encode_response
from transfer.dimse.contexts import ACCEPTED, agree, is_storage
from transfer.dimse.messages import DataFragment, MessageReader, RequestBegun
from transfer.dimse.pdu import LOCAL_LIMIT_EXCEEDED, AssociateRequest, Pdv, Rejection
from transfer.doors import Doors, Guest
from transfer.errors import BusyError, ProtocolError
from transfer.lobby import Lobby, network_of
from transfer.log import get_logger
from transfer.places import Places
from transfer.stream import listen

__all__ = ["IncomingFile", "ScpSettings", "Spool", "serve_scp"]

log = get_logger()
RECEIVE_BYTES: Final = 256 << 10
STRANGERS_MAX: Final = 1024  # those that have not asked yet, or are being rejected; some 32 KiB each
STRANGERS_ADDRESS_MAX: Final = 512  # ten times what may be at once, in one burst, hear that they are rejected
LINGER_S: Final = 5.0  # for the peer to read the last words and close


async def serve_scp(
    settings: ScpSettings,
    spool: Spool,
    *,
    task_status: trio.TaskStatus[trio.SocketListener] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `task_status` gets the listener when connections are taken.

    Raises:
        SettingsError: the address is in use or not this machine's.
    """
    listener = await listen(addresses.parse(settings.listen))
    log.info("scp_listening", listen=settings.listen, ae_title=settings.ae_title)
    task_status.started(listener)
    await trio.serve_listeners(Server(settings, spool).serve, [listener])


class Server:
    """What the connections of one port share."""

    def __init__(self, settings: ScpSettings, spool: Spool) -> None:
        self.settings, self.spool = settings, spool
        limit = descriptors.raise_limit()
        most = settings.max_associations
        self.doors = Doors(
            Lobby(descriptors.fit(STRANGERS_MAX, limit - 2 * most), STRANGERS_ADDRESS_MAX),
            Places(most, settings.max_associations_per_address or most - most // 4),
        )

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection; the unit that may fail alone."""
        scope = trio.CancelScope()
        try:
            host = str(stream.socket.getpeername()[0])
        except OSError:  # gone again
            await trio.aclose_forcefully(stream)
            return
        guest = self.doors.enter(host, scope.cancel)
        try:
            with scope:
                async with stream:
                    await Conversation(self, stream, host=host, guest=guest).run()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]  # not its text: that could quote a data set
            log.error("association_failed", error=type(error).__name__, where=f"{where.name}:{where.lineno}")
        finally:
            guest.leave()


class Conversation:
    """One connection from its first byte to its log line."""

    def __init__(
        self, server: Server, stream: trio.abc.HalfCloseableStream, *, host: str, guest: Guest | None = None
    ) -> None:
        self._server, self._settings, self._stream, self._host = server, server.settings, stream, host
        self._association = Association(max_pdu_bytes=server.settings.max_pdu_bytes)
        self._syntaxes: dict[int, tuple[str, str]] = {}  # of accepted contexts: abstract and transfer syntax
        self._messages = MessageReader(self._syntaxes)
        self._begun: RequestBegun | None = None
        self._reception: Reception | None = None
        self._stored_count = self._refused_count = self._received_bytes = 0
        self._is_crowded_out = False
        self._guest = guest or server.doors.enter(host, lambda: None)

    async def run(self) -> None:
        """Converse, then leave nothing half received, and say how it went."""
        began_s = trio.current_time()
        reason = "ended from this side"
        try:
            reason = await self._converse()
        except trio.TooSlowError:
            reason = "timeout"
        except (trio.BrokenResourceError, OSError):
            reason = "connection lost"
        finally:
            self._guest.leave()
            if self._reception is not None:
                await self._reception.abandon()
            self._log(reason, trio.current_time() - began_s)

    async def _converse(self) -> str:
        """Return how it ended."""
        allowed_s = self._settings.artim_s
        while True:
            with trio.move_on_after(allowed_s) as scope:
                event = await self._next_event()
            if scope.cancelled_caught:
                return await self._time_out()
            if isinstance(event, Ended):
                await self._say_last(event.reply)
                return event.reason or "closed without a request"
            if isinstance(event, ReleaseRequested):
                await self._say_last(self._association.release())
                return "released"
            try:
                rejected = await self._answer(event)
            except ProtocolError as error:
                await self._say_last(self._association.abort())
                return error.message
            if rejected:
                return rejected
            allowed_s = self._settings.idle_timeout_s

    async def _next_event(self) -> Event:
        while (event := self._association.next_event()) is None:
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if not data:
                return Ended(b"", self._association.close())
            self._association.feed(data)
        return event

    async def _answer(self, event: AssociateRequest | Pdv) -> str:
        """Answer a request or take data; return why the association was rejected, "" when it goes on."""
        if isinstance(event, AssociateRequest):
            return await self._admit(event)
        message = self._messages.take(event)
        if isinstance(message, RequestBegun):
            await self._begin(message)
        elif isinstance(message, DataFragment):
            await self._take(message)
        return ""

    async def _admit(self, request: AssociateRequest) -> str:
        rejection = judge(request, self._settings, host=self._host) or self._find_place()
        if rejection is not None:
            await self._say_last(self._association.reject(rejection))
            return f"rejected: result {rejection.result} source {rejection.source} reason {rejection.reason}"
        agreed = tuple(agree(context) for context in request.contexts)
        self._syntaxes.update(
            (context.context_id, (context.abstract_syntax, answer.transfer_syntax))
            for context, answer in zip(request.contexts, agreed, strict=True)
            if answer.result == ACCEPTED
        )
        await self._send(
            self._association.accept(
                agreed, class_uid=IMPLEMENTATION_CLASS_UID, version_name=IMPLEMENTATION_VERSION_NAME
            )
        )
        return ""

    def _find_place(self) -> Rejection | None:
        try:
            self._guest.admit(network_of(self._host))
        except BusyError:
            self._is_crowded_out = True
            return LOCAL_LIMIT_EXCEEDED
        return None

    async def _begin(self, begun: RequestBegun) -> None:
        """A command is whole: begin to receive its instance, or answer when no data set follows."""
        request = begun.request
        self._begun = begun
        if _judge_command(request, self._syntaxes[begun.context_id][0]) is None and request.has_data_set:
            calling = self._association.request.calling_ae_title if self._association.request else ""
            self._reception = Reception(request, self._syntaxes[begun.context_id][1], calling)
            await self._reception.begin(self._server.spool, f"{calling}@{self._host}")
        if not request.has_data_set:
            await self._end_message()

    async def _take(self, fragment: DataFragment) -> None:
        self._received_bytes += len(fragment.data)
        if self._reception is not None:
            await self._reception.take(fragment.data)
        if fragment.is_last:
            await self._end_message()

    async def _end_message(self) -> None:
        """The message is whole: answer it."""
        if self._begun is None:
            raise ProtocolError("data set without a command")
        begun, reception, self._begun, self._reception = self._begun, self._reception, None, None
        refusal = _judge_command(begun.request, self._syntaxes[begun.context_id][0])
        status, comment = refusal or (Status.SUCCESS, "")
        if reception is not None:
            try:
                status, comment = await reception.finish()
            finally:
                await reception.abandon()
        if begun.request.command_field == CommandField.C_STORE_RQ:
            self._count(status)
        response = encode_response(begun.request, status, comment)
        await self._send(self._association.send_command(begun.context_id, response))

    def _count(self, status: int) -> None:
        if status == Status.SUCCESS:
            self._stored_count += 1
        else:
            self._refused_count += 1

    async def _send(self, data: bytes) -> None:
        with trio.fail_after(self._settings.idle_timeout_s):
            await self._stream.send_all(data)

    async def _time_out(self) -> str:
        if self._association.state is State.STA2:
            self._association.expire()
            return "timeout before a request"
        await self._say_last(self._association.abort())
        return "timeout"

    async def _say_last(self, data: bytes) -> None:
        """Send, then read until the peer closes: closing with unread bytes would destroy what was sent."""
        if not data:
            return
        with trio.move_on_after(min(self._settings.artim_s, LINGER_S)):
            await self._stream.send_all(data)
            await self._stream.send_eof()
            while await self._stream.receive_some(RECEIVE_BYTES):
                pass

    def _log(self, reason: str, seconds: float) -> None:
        request = self._association.request
        # a flood of silent ones, or of those that find no place, would fill the disk; `Doors` counts both
        say = log.info if request and not self._is_crowded_out else log.debug
        say(
            "association_ended",
            peer=self._host,
            calling_ae_title=request.calling_ae_title if request else "",
            called_ae_title=request.called_ae_title if request else "",
            stored_count=self._stored_count,
            refused_count=self._refused_count,
            received_bytes=self._received_bytes,
            seconds=math.ceil(seconds * 1000) / 1000,
            reason=reason,
        )


def _judge_command(request: Request, abstract_syntax: str) -> tuple[int, str] | None:
    """Return the status that refuses a command whatever its data set, None when it is served."""
    if request.command_field == CommandField.C_ECHO_RQ:
        return None if not request.has_data_set else (Status.UNRECOGNISED_OPERATION, "C-ECHO with a data set")
    if request.command_field != CommandField.C_STORE_RQ:
        return Status.UNRECOGNISED_OPERATION, "only C-STORE and C-ECHO are served"
    if not is_storage(abstract_syntax) or request.sop_class_uid != abstract_syntax:
        return Status.SOP_CLASS_NOT_SUPPORTED, "not the SOP class of its presentation context"
    return None if request.has_data_set else (Status.CANNOT_UNDERSTAND, "C-STORE without a data set")
