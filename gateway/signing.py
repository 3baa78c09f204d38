"""The keys that tickets are signed with: the identity's at first, then those that `rotate` makes; never more than two.

A new key is published to the nodes `OVERLAP_S` before the first ticket is signed with it, and the one before it stays
good, so a rotation ends nothing; the next is refused while a ticket of that one may be good. With `revoke_tickets` the
new key counts at once and alone, and the epoch grows: every ticket and every flow that was opened with one ends as soon
as a node has asked (`nodes.trust`). Private keys are files of mode 0600 in `DATA/ticket-keys/`. Refuses to do: tickets
themselves, receipts of commits.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from gateway.register import Record, Register, TicketKey
from transfer import keyfiles, pki, tickets
from transfer.errors import ConflictError
from transfer.membership import Trust

OVERLAP_S: Final = 30.0  # three times what nodes let pass between two questions
KEYS_MAX: Final = 2


class SigningKeys:
    """The private keys, and which of them signs now."""

    def __init__(
        self, identity: Path, folder: Path, register: Register, clock: Callable[[], float] = time.time
    ) -> None:
        """Read the keys.

        Raises:
            SettingsError: one is missing or unreadable.
        """
        self._folder, self._register, self._clock = folder, register, clock
        first = pki.load_signing_key(identity)
        self._first = TicketKey(public_key=_hex(first), active_from_s=0.0)
        self._private = {self._first.public_key: first}
        for key in self._listed():
            if key.public_key not in self._private:
                self._private[key.public_key] = keyfiles.load_private_key(self._path(key.public_key))

    def current(self) -> tuple[Ed25519PrivateKey, int]:
        """Return the key to sign a ticket with, and the epoch to write into it."""
        now_s = self._clock()
        listed = self._listed()
        key = next((key for key in listed if key.active_from_s <= now_s), listed[-1])
        return self._private[key.public_key], self._register.record.epoch

    def trust(self) -> Trust:
        """Return what nodes are to trust."""
        record = self._register.record
        return Trust(keys=[key.public_key for key in self._listed()], epoch=record.epoch, revoked=record.revoked)

    async def rotate(self, *, revoke_tickets: bool) -> Trust:
        """Make a new key, durably; return what nodes are to trust from now on.

        Asked again before that key signs, it is the same rotation: a third key would push out the one that signs now.

        Raises:
            ConflictError: tickets of the key that would be pushed out may still be good; it says for how long.
            SettingsError, StorageError, FullError: key or register cannot be written; nothing changes here.
        """

        def edit(record: Record) -> tuple[Record, None]:  # one at a time: the next finds what this one made
            if revoke_tickets:
                key = TicketKey(public_key=self._make(), active_from_s=self._clock())
                return replace(record, keys=[key], epoch=record.epoch + 1), None
            newest = self._listed()[0]
            if newest.active_from_s > self._clock():
                return record, None
            self._check_old_tickets_ended()
            key = TicketKey(public_key=self._make(), active_from_s=self._clock() + OVERLAP_S)
            return replace(record, keys=[key, newest]), None

        await self._register.change(edit)
        return self.trust()

    def _check_old_tickets_ended(self) -> None:
        """Check that no ticket is good that was signed before the newest key did; without an older key none is."""
        listed = self._listed()
        left_s = listed[0].active_from_s + tickets.LIFETIME_S - self._clock()
        if len(listed) == KEYS_MAX and left_s > 0:
            raise ConflictError(
                f"tickets of the key before this one are good for {math.ceil(left_s)} s more; rotate then, or end "
                "them now with --revoke-tickets"
            )

    def _make(self) -> str:
        """Make a key, durably; return the public one."""
        fresh = Ed25519PrivateKey.generate()
        keyfiles.write_private_key(self._path(_hex(fresh)), fresh)
        self._private[_hex(fresh)] = fresh
        return _hex(fresh)

    def _listed(self) -> list[TicketKey]:
        return self._register.record.keys or [self._first]

    def _path(self, public_key: str) -> Path:
        return self._folder / f"{public_key[:16]}.pem"


def _hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()
