"""The register: who was invited, enrolled and revoked, and with which keys tickets are signed. One JSON file.

It is not part of the catalogue: a catalogue that is lost and made again from the nodes must not let revoked parties in.
Every change is durable before it counts, and only this module writes the file (`DATA/register.json`, mode 0600). Of an
invitation's secret only the SHA-256 is kept. Refuses to do: certificates, deciding who may change it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from transfer.durable import write_file_durably
from transfer.errors import SettingsError, UnauthorisedError
from transfer.membership import PartyRole
from transfer.protocol.messages import UNREADABLE
from transfer.tls import Peer

T = TypeVar("T")
FILE_MODE: Final = 0o600


class TicketKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key for tickets (hex), and from when on (Unix seconds) tickets are signed with it."""

    public_key: str
    active_from_s: float


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolled party; `public_key` of a node's receipts, "" for others; `not_before_s` of its first certificate."""

    role: PartyRole
    hosts: list[str]
    public_key: str
    enrolled_at_s: int
    not_before_s: int


class Invited(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolment that may take place."""

    name: str
    role: PartyRole
    hosts: list[str]
    expires_at_s: float


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. `invited` by the secret's SHA-256; `revoked`: the last `notBefore` that is revoked, by name."""

    version: int = 1
    epoch: int = 0
    keys: list[TicketKey] = []
    parties: dict[str, Party] = {}
    invited: dict[str, Invited] = {}
    revoked: dict[str, int] = {}
    draining: list[str] = []  # nodes that are to be taken away
    domains: dict[str, str] = {}  # failure domains that an administrator said, by node

    def is_revoked(self, name: str, not_before_s: int) -> bool:
        """Tell whether a certificate of `name` that begins at this moment was revoked."""
        return not_before_s <= self.revoked.get(name, -1)

    def nodes(self) -> dict[str, str]:
        """Return the keys of the enrolled nodes that take part, by name."""
        return {
            name: party.public_key
            for name, party in self.parties.items()
            if party.role == "node" and not self.is_revoked(name, party.not_before_s)
        }


class Register:
    """The open register; `record` is what is durable."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one yet.

        Raises:
            SettingsError: unreadable: going on without it would let in who was revoked.
        """
        self._path = path
        self._changing = asyncio.Lock()
        try:
            self.record = msgspec.json.decode(path.read_bytes(), type=Record)
        except FileNotFoundError:
            self.record = Record()
        except (OSError, *UNREADABLE) as error:
            raise SettingsError(f"{path}: the register of parties cannot be read: {error}") from error

    def is_revoked(self, peer: Peer) -> bool:
        """Tell whether the certificate was revoked."""
        return self.record.is_revoked(peer.name, peer.not_before_s)

    async def change(self, edit: Callable[[Record], tuple[Record, T]]) -> T:
        """Put what `edit` makes of the record in its place, durably, and return its answer.

        Raises:
            StorageError, FullError: it cannot be written; nothing changes here. Where only the last flush failed, the
                next start may find it changed.
            FascicleError: whatever `edit` refuses.
        """
        async with self._changing:
            changed, answer = edit(self.record)
            data = msgspec.json.format(msgspec.json.encode(changed), indent=1) + b"\n"
            await asyncio.to_thread(write_file_durably, self._path, data, FILE_MODE)
            self.record = changed
            return answer

    async def unless_revoked(self, peer: Peer, make: Callable[[], T]) -> T:
        """Return what `make` makes for `peer`: no revocation begins, or is being written, while it does.

        Raises:
            UnauthorisedError: the peer's certificate was revoked.
            FascicleError: whatever `make` refuses.
        """
        async with self._changing:
            if self.is_revoked(peer):
                raise UnauthorisedError(f"the certificate of {peer.name[:64]} was revoked; enrol it anew")
            return make()

    async def revoke(self, name: str, read_begin_s: Callable[[], int]) -> None:
        """Revoke the certificates of `name` made up to now, and its invitations.

        `read_begin_s` gives the beginning of one that is made now. It is asked once nobody else changes anything: one
        that was renewed while this waited begins no later.

        A clock that was put back does not let in again who was revoked, nor keep who was enrolled by the later time.
        """

        def edit(record: Record) -> tuple[Record, None]:
            party = record.parties.get(name)
            last_s = max(read_begin_s(), record.revoked.get(name, -1), party.not_before_s if party else -1)
            invited = {key: invited for key, invited in record.invited.items() if invited.name != name}
            draining = [each for each in record.draining if each != name]
            revoked = record.revoked | {name: last_s}
            domains = {key: domain for key, domain in record.domains.items() if key != name}
            return replace(record, revoked=revoked, invited=invited, draining=draining, domains=domains), None

        await self.change(edit)
