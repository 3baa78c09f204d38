"""What a node trusts: keys of tickets, the epoch they must be of, and who is revoked; learned without a restart.

The gateway is asked every `ASK_S` seconds over TLS with certificates on both sides, which is why its word counts; what
it said last is kept on the node's disk (DATA/trust.json) and holds while the gateway is away. Before the first answer
the configuration's key counts. An epoch never goes back. Refuses to do: judging tickets (`nodes.admission`).
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Never

import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from transfer import credentials
from transfer.client import GatewayClient
from transfer.durable import write_file_durably
from transfer.errors import FascicleError, SettingsError, UnauthorisedError
from transfer.log import get_logger
from transfer.membership import Trust
from transfer.pki import public_key_from_hex
from transfer.protocol.messages import UNREADABLE
from transfer.tls import Peer

ASK_S: Final = 10.0
log = get_logger()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file: what the gateway said, and the configuration's key then; with another one the file counts no more."""

    configured: str
    trust: Trust


class Trusted:
    """The trust of one node; `path` None keeps it in memory only."""

    def __init__(self, trust: Trust, *, path: Path | None = None, configured: str = "") -> None:
        self.trust = trust
        self.keys = _keys(trust)
        self._path, self._configured = path, configured

    @classmethod
    def of_key(cls, key: Ed25519PublicKey) -> "Trusted":
        """Return the trust in one key alone."""
        return cls(Trust(keys=[key.public_bytes_raw().hex()], epoch=0, revoked={}))

    @classmethod
    def load(cls, path: Path, configured: str) -> "Trusted":
        """Return what was kept at `path`, or the trust in the key `configured`.

        Raises:
            SettingsError: a file that cannot be read: guessing could let in who was revoked.
        """
        start = Trust(keys=[configured], epoch=0, revoked={})
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return cls(start, path=path, configured=configured)
        except (OSError, *UNREADABLE) as error:
            raise SettingsError(
                f"{path}: cannot be read: {error}; remove it to begin with the configured key"
            ) from error
        trust = kept.trust if kept.configured == configured else start
        return cls(trust, path=path, configured=configured)

    @property
    def epoch(self) -> int:
        """Tickets of an earlier epoch are refused."""
        return self.trust.epoch

    def is_revoked(self, peer: Peer) -> bool:
        """Tell whether the certificate was revoked."""
        return peer.not_before_s <= self.trust.revoked.get(peer.name, -1)

    def take(self, trust: Trust) -> bool:
        """Trust as the gateway says, from now on and after a restart; tells whether that is news. Blocks.

        Raises:
            UnauthorisedError: an epoch that has passed.
            StorageError: it cannot be kept; nothing changes.
        """
        if trust == self.trust:
            return False
        if trust.epoch < self.trust.epoch:
            raise UnauthorisedError(f"the gateway is of epoch {trust.epoch}, and {self.trust.epoch} was here before")
        keys = _keys(trust)
        if self._path is not None:
            kept = Kept(configured=self._configured, trust=trust)
            write_file_durably(self._path, msgspec.json.encode(kept))
        self.trust, self.keys = trust, keys
        return True


async def keep_trust(
    trusted: Trusted, gateway: str, identity: Path, context: ssl.SSLContext, on_news: Callable[[], None]
) -> Never:
    """Ask the gateway for ever; `on_news` is called after each change."""
    trouble = ""
    async with GatewayClient(credentials.from_identity(gateway, identity), patience_s=0, context=context) as client:
        while True:
            try:
                if await trio.to_thread.run_sync(trusted.take, await client.trust()):
                    log.info("trust_changed", epoch=trusted.epoch, keys=len(trusted.keys))
                    on_news()
                trouble = ""
            except FascicleError as error:
                if error.code != trouble:
                    log.warning("trust_not_renewed", code=error.code, reason=error.message)
                trouble = error.code
            await trio.sleep(ASK_S)


def _keys(trust: Trust) -> tuple[Ed25519PublicKey, ...]:
    return tuple(map(public_key_from_hex, trust.keys))
