"""The gateway's flows to nodes for listing and repair, apart from those that transfers wait for.

Every answer is signed by its node and verified here; what is not answered raises, because a repair must know from not
knowing. Refuses to do: judging what the answers mean.
"""

import asyncio
import secrets
import ssl
from typing import Final

from gateway.nodelink import MakeTicket, NodeLink
from gateway.signatures import NodeKeys
from transfer import pages
from transfer.errors import UnreachableError
from transfer.heartbeat import Heartbeat
from transfer.pages import Page
from transfer.protocol.messages import List, Listed

NONCE_BYTES: Final = 16


class RepairLinks:
    """The flows to all nodes; one request at a time on each."""

    def __init__(
        self, keys: NodeKeys, make_ticket: MakeTicket, tls: ssl.SSLContext | None, *, list_timeout_s: float
    ) -> None:
        self._keys = keys
        self._make_ticket = make_ticket
        self._tls = tls
        self._list_timeout_s = list_timeout_s
        self._links: dict[str, NodeLink] = {}

    async def list(self, node: Heartbeat, after: bytes, *, quarantined: bool = False) -> Page:
        """Return the next page of what a node holds, or has only damaged files of.

        Raises:
            UnreachableError: no answer in time.
            FascicleError: refused, or an answer that cannot be believed.
        """
        asked = List(after, quarantined, secrets.token_bytes(NONCE_BYTES))
        try:
            async with asyncio.timeout(self._list_timeout_s):
                listed = await self._link(node).request((node.host, node.port), asked, Listed)
        except TimeoutError as error:
            raise UnreachableError(f"{node.node_id} does not list what it holds in time") from error
        key = self._keys.key(node.node_id)
        return await asyncio.to_thread(
            lambda: pages.verify(listed, key, node_id=node.node_id, after=after, nonce=asked.nonce)
        )

    def close(self) -> None:
        """Drop all flows."""
        for link in self._links.values():
            link.close()

    def _link(self, node: Heartbeat) -> NodeLink:
        if node.node_id not in self._links:
            self._links[node.node_id] = NodeLink(node.node_id, self._make_ticket, self._tls)
        return self._links[node.node_id]
