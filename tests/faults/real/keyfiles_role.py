"""Small files that take the place of old ones, as a campaign works them: keys of tickets, register, a node's trust.

Rotations are numbered by the clock that they are made by, so that an old file is told from a new one. What returned is
the promise: a rotation, a revocation, a node's taking of both. The check: gateway and node open their files by
themselves, which are old or new and never neither; each listed key has its private half; nothing promised is missing.
Refuses to do: certificates, tickets.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest.mock import patch

from msgspec.structs import replace

from gateway.register import Register, TicketKey
from gateway.service import locked
from gateway.signing import SigningKeys
from nodes.trust import Trusted
from tests.faults.real.forks import Say
from tests.faults.real.role import Role, promise
from transfer import keyfiles, pki
from transfer.errors import FascicleError

T = TypeVar("T")
BATCH: Final = (1, 2, 3)
APART_S: Final = 100.0  # between two rotations by the clock here, and more than keys overlap
FORMER: Final = 4000  # parties
NEW_EPOCH: Final = 2  # every second rotation begins one


class Files:
    """The open files of a gateway and of a node."""

    def __init__(self, folder: Path) -> None:
        """Open them, and make the gateway's own key if need be.

        Raises:
            FascicleError: one that is neither old nor new.
        """
        pki.ensure_signing_key(folder / "identity")
        self.identity = pki.load_signing_key(folder / "identity").public_key().public_bytes_raw().hex()
        self.register = Register(folder / "register.json")
        self._folder = folder / "ticket-keys"
        self.signing = SigningKeys(folder / "identity", self._folder, self.register, self._now_s)
        self.trusted = Trusted.load(folder / "trust.json", self.identity)
        self._rotation = self.number()

    def _now_s(self) -> float:
        return self._rotation * APART_S

    def number(self) -> int:
        """Return which rotation was the last."""
        return max((number_of(key) for key in self.register.record.keys), default=0)

    def steps(self, seed: int) -> list[Callable[[], Coroutine[Any, Any, str]]]:
        """Return what is done for a seed; each returns its promise."""
        return [self._rotate, partial(self._revoke, seed), self._take]

    def listed(self) -> list[str]:
        """Return the public keys by which tickets may be signed, but for the identity's."""
        return [key.public_key for key in self.register.record.keys if key.public_key != self.identity]

    def private_of(self, public_key: str) -> str:
        """Return which public key the file of a listed one is of."""
        key = keyfiles.load_private_key(self._folder / f"{public_key[:16]}.pem")
        return key.public_key().public_bytes_raw().hex()

    async def _rotate(self) -> str:
        self._rotation = self.number() + 1
        trust = await self.signing.rotate(revoke_tickets=self._rotation % NEW_EPOCH == 0)
        return f"rotated {self._rotation} {trust.keys[0]} {trust.epoch}"

    async def _revoke(self, seed: int) -> str:
        await self.register.revoke(f"party-{seed}", lambda: seed)
        return f"revoked {seed}"

    async def _take(self) -> str:
        trust = self.signing.trust()
        self.trusted.take(trust)
        return f"trusted {trust.epoch} {len(trust.revoked)}"


def number_of(key: TicketKey) -> int:
    """Return which rotation made a key."""
    return int(key.active_from_s // APART_S)


def prepare(folder: Path) -> None:
    """Leave a register of many parties, which fills a small disk."""
    revoked = {f"former-{number}": number for number in range(FORMER)}
    with locked(folder), patch.object(asyncio, "to_thread", _here):
        register = Register(folder / "register.json")
        asyncio.run(register.change(lambda record: (replace(record, revoked=revoked), None)))


def batch(folder: Path, say: Say) -> None:
    """Rotate, revoke and take for each of `BATCH`; what an error refused is tried once more."""
    with patch.object(asyncio, "to_thread", _here), ExitStack() as stack:
        _twice(lambda: stack.enter_context(locked(folder)), say)
        files = _twice(lambda: Files(folder), say)
        promise(say, f"identity {files.identity}", 0)
        for seed in BATCH:
            for step in files.steps(seed):
                promise(say, _twice(lambda step=step: asyncio.run(step()), say), seed)


async def _here(call: Callable[..., Any], *arguments: Any) -> Any:
    """Stand for `asyncio.to_thread`, so that strace counts the calls of one thread."""
    return call(*arguments)


def _twice(step: Callable[[], T], say: Say) -> T:
    try:
        return step()
    except FascicleError:
        pass
    try:
        return step()
    except FascicleError as error:
        say({"refused": error.message})
        raise


def for_ever(folder: Path, first_seed: int, say: Say) -> None:
    """Rotate, revoke and take."""
    with locked(folder):
        files = Files(folder)
        say({"open": True})
        promise(say, f"identity {files.identity}", first_seed)
        asyncio.run(_for_ever(files, first_seed, say))


async def _for_ever(files: Files, first_seed: int, say: Say) -> None:
    for seed in itertools.count(first_seed):
        for step in files.steps(seed):
            promise(say, await step(), seed)


def check(folder: Path, promised: Mapping[str, int]) -> list[str]:
    """Open the files again, and judge."""
    with locked(folder):
        files = Files(folder)
        problems = [f"the file of {key} has another" for key in files.listed() if files.private_of(key) != key]
    return problems + [f"LOST {key}" for key in promised if not _is_kept(files, *key.split())]


def _is_kept(files: Files, what: str, *about: str) -> bool:
    record, trust = files.register.record, files.trusted.trust
    if what == "identity":
        return files.identity == about[0]
    if what == "revoked":
        return record.revoked.get(f"party-{about[0]}") == int(about[0])
    if what == "trusted":
        return trust.epoch >= int(about[0]) and len(trust.revoked) >= int(about[1])
    keys = {number_of(key): key.public_key for key in record.keys}
    number, public_key, epoch = int(about[0]), about[1], int(about[2])
    return record.epoch >= epoch and files.number() >= number and keys.get(number, public_key) == public_key


KEYFILES: Final = Role("keyfiles", prepare, batch, for_ever, check, warm=True)
