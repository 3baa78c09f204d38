"""Who signed: receipts are taken only from nodes of this cluster, and name only nodes of this cluster.

Refuses to do: keeping what the receipts say.
"""

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.settings import NodeEntry
from transfer import receipts
from transfer.api import SignedReceipts
from transfer.errors import ConflictError, UnauthorisedError
from transfer.pki import public_key_from_hex
from transfer.protocol.messages import Stored
from transfer.receipts import ReceiptBatch


class NodeKeys:
    """The public keys of the cluster's nodes."""

    def __init__(self, nodes: Iterable[NodeEntry]) -> None:
        """Read the keys.

        Raises:
            SettingsError: one is not an Ed25519 key.
        """
        self._keys = {entry.node_id: public_key_from_hex(entry.public_key) for entry in nodes}
        self._revoked: set[str] = set()

    def add(self, node_id: str, public_key: str) -> None:
        """Take a node in, or its new key.

        Raises:
            SettingsError: not an Ed25519 key.
        """
        self._keys[node_id] = public_key_from_hex(public_key)
        self._revoked.discard(node_id)

    def remove(self, node_id: str) -> None:
        """Take no more word of a node: it was revoked."""
        self._keys.pop(node_id, None)
        self._revoked.add(node_id)

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._keys

    def key(self, node_id: str) -> Ed25519PublicKey:
        """Return the node's key.

        Raises:
            UnauthorisedError: no node of this cluster.
        """
        try:
            return self._keys[node_id]
        except KeyError as error:
            raise UnauthorisedError(f"`{node_id[:64]}` is not a node of this cluster") from error

    def hex(self, node_id: str) -> str:
        """Return the node's key as 64 hex digits."""
        return self.key(node_id).public_bytes_raw().hex()

    def verify(self, stored: Stored) -> ReceiptBatch:
        """Return what the node signed.

        Raises:
            ProtocolError: not a receipt batch.
            ConflictError: of or about a node that was revoked, maybe while a transfer to it went on.
            UnauthorisedError: altered, or of or about a node that is none of this cluster's.
        """
        batch = receipts.verify(stored, self._signer(receipts.read_unverified(stored).node_id))
        for receipt in batch.receipts:
            for node_id in receipt.node_ids:
                self._signer(node_id)
        return batch

    def _signer(self, node_id: str) -> Ed25519PublicKey:
        if node_id in self._revoked:
            raise ConflictError(
                f"{node_id} was revoked, so that its receipts count no more; send again: what other nodes have is not "
                "sent twice"
            )
        return self.key(node_id)

    def verify_all(self, signed: Iterable[SignedReceipts]) -> list[ReceiptBatch]:
        """Return what the nodes signed; one bad signature refuses them all."""
        return [self.verify(Stored(item.batch, item.signature)) for item in signed]
