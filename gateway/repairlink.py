"""The gateway's flows to nodes for listing and repair, apart from those that transfers wait for.

Every answer is signed by its node and verified here; what is not answered raises, because a repair must know from not
knowing. Refuses to do: judging what the answers mean.
"""

import asyncio
import secrets
import ssl
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.nodelink import IsRevoked, M, MakeTicket, NodeLink
from gateway.signatures import NodeKeys
from transfer import pages
from transfer.errors import UnauthorisedError, UnreachableError
from transfer.heartbeat import Heartbeat
from transfer.pages import Page
from transfer.protocol.messages import (
    Check,
    Checked,
    Copied,
    Copy,
    Discard,
    Done,
    List,
    Listed,
    Message,
    Purge,
    Reason,
    Refused,
    Restore,
    Stored,
    Trash,
    Trashed,
)
from transfer.receipts import ReceiptBatch

NONCE_BYTES: Final = 16
COPY_TIMEOUT_S: Final = 60.0  # and as long as the bytes take at this rate, at least
COPY_BYTES_PER_S_MIN: Final = 256 << 10


class Copies(NamedTuple):
    """What was copied, by the source's receipts, and why the others were not."""

    batch: ReceiptBatch
    failed: list[Refused]


class RepairLinks:
    """The flows to all nodes; one request at a time on each."""

    def __init__(
        self,
        keys: NodeKeys,
        make_ticket: MakeTicket,
        tls: ssl.SSLContext | None,
        is_revoked: IsRevoked,
        *,
        list_timeout_s: float,
    ) -> None:
        self._keys = keys
        self._make_ticket = make_ticket
        self._tls = tls
        self._is_revoked = is_revoked
        self._list_timeout_s = list_timeout_s
        self._links: dict[str, NodeLink] = {}

    async def list(self, node: Heartbeat, after: bytes, *, quarantined: bool = False) -> Page:
        """Return the next page of what a node holds, or has only damaged files of.

        Raises:
            UnreachableError: no answer in time.
            FascicleError: refused, or an answer that cannot be believed.
        """
        asked = List(after, quarantined, secrets.token_bytes(NONCE_BYTES))
        listed = await self._request(node, asked, Listed, self._list_timeout_s)
        key = self._keys.key(node.node_id)
        return await asyncio.to_thread(
            lambda: pages.verify(listed, key, node_id=node.node_id, after=after, nonce=asked.nonce)
        )

    async def check(self, node: Heartbeat, object_ids: Sequence[bytes]) -> ReceiptBatch:
        """Return a node's receipts for those of at most 256 objects that it holds.

        Raises:
            FascicleError: as `list`.
        """
        checked = await self._request(node, Check(list(object_ids), deep=False), Checked, self._list_timeout_s)
        return self._verify(node, checked.sound)

    async def copy(self, source: Heartbeat, object_ids: Sequence[bytes], ticket: bytes, size_bytes: int) -> Copies:
        """Have `source` copy objects to the other node of `ticket`.

        Raises:
            FascicleError: as `list`; some may have been copied all the same.
        """
        copied = await self._request(source, Copy(list(object_ids), ticket), Copied, _patience_s(size_bytes))
        return Copies(self._verify(source, copied.stored), copied.failed)

    async def verify(self, node: Heartbeat, object_ids: Sequence[bytes], size_bytes: int) -> ReceiptBatch:
        """Return a node's receipts for those of at most 256 objects whose every byte it has read again.

        Raises:
            FascicleError: as `list`.
        """
        asked = Check(list(object_ids), deep=True)
        checked = await self._request(node, asked, Checked, _patience_s(size_bytes))
        return self._verify(node, checked.sound)

    async def discard(self, node: Heartbeat, object_ids: Sequence[bytes], reason: Reason, keep_s: int) -> Done:
        """Have a node put objects aside; what is not in the answer may be so all the same.

        Raises:
            FascicleError: as `list`.
        """
        return await self._request(node, Discard(list(object_ids), reason, keep_s), Done, self._list_timeout_s)

    async def restore(self, node: Heartbeat, object_ids: Sequence[bytes], size_bytes: int) -> ReceiptBatch:
        """Have a node put objects back; return its receipts for those that are in their places now.

        Raises:
            FascicleError: as `list`.
        """
        checked = await self._request(node, Restore(list(object_ids)), Checked, _patience_s(size_bytes))
        return self._verify(node, checked.sound)

    async def purge(self, node: Heartbeat, object_ids: Sequence[bytes], *, at_once: bool) -> Done:
        """Have a node delete what it put aside, where its time has passed or `at_once`.

        Raises:
            FascicleError: as `list`.
        """
        return await self._request(node, Purge(list(object_ids), at_once), Done, self._list_timeout_s)

    async def trash(self, node: Heartbeat, after: bytes) -> Trashed:
        """Return the next page of what a node put aside.

        Raises:
            FascicleError: as `list`.
        """
        return await self._request(node, Trash(after), Trashed, self._list_timeout_s)

    def close(self) -> None:
        """Drop all flows."""
        for link in self._links.values():
            link.close()

    async def _request(self, node: Heartbeat, message: Message, kind: type[M], timeout_s: float) -> M:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._link(node).request((node.host, node.port), message, kind)
        except TimeoutError as error:
            asked = type(message).__name__.upper()
            raise UnreachableError(f"{node.node_id} does not answer {asked} within {timeout_s:.0f} s") from error

    def _verify(self, node: Heartbeat, stored: Stored) -> ReceiptBatch:
        batch = self._keys.verify(stored)
        if batch.node_id != node.node_id:
            raise UnauthorisedError(f"{node.node_id} answers with receipts of {batch.node_id}")
        return batch

    def _link(self, node: Heartbeat) -> NodeLink:
        if node.node_id not in self._links:
            self._links[node.node_id] = NodeLink(node.node_id, self._make_ticket, self._tls, self._is_revoked)
        return self._links[node.node_id]


def _patience_s(size_bytes: int) -> float:
    return COPY_TIMEOUT_S + size_bytes / COPY_BYTES_PER_S_MIN
