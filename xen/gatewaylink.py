"""`xen.cloud.Cloud` by the gateway's own API, with an administrator's credentials.

Each question is asked patiently, as everywhere (`transfer.client`). Whether a node may be removed is the gateway's word
alone: it drains, and is safe. Refuses to do: keeping anything.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from transfer import credentials
from transfer.api import DrainStatus, NodeStatus
from transfer.errors import NotStoredError
from transfer.joining import JoiningClient, Token, encode_token
from transfer.membership import Invite, TellDomain
from transfer.upkeep import Drain
from xen.cloud import Node

PATIENCE_S: Final = 30.0
INVITATION_S: Final = 3600.0  # a machine boots and asks; 30 at once on old disks take their time


@asynccontextmanager
async def open_cloud(administrator: Path) -> AsyncIterator["GatewayCloud"]:
    """Open the gateway that a credentials file names.

    Raises:
        SettingsError: the file cannot be used.
    """
    read = credentials.load(administrator)
    async with JoiningClient(read, patience_s=PATIENCE_S) as client:
        yield GatewayCloud(client, read.gateway)


class GatewayCloud:
    """One gateway; see `xen.cloud.Cloud`."""

    def __init__(self, client: JoiningClient, gateway: str) -> None:
        self._client, self._gateway = client, gateway

    async def nodes(self) -> Mapping[str, Node]:
        """See `Cloud`."""
        status = await self._client.status()
        drains = {each.node_id: each for each in status.repairs.drains}
        return {each.node_id: _node(each, drains.get(each.node_id)) for each in status.nodes}

    async def invite(self, name: str, hosts: Sequence[str]) -> str:
        """See `Cloud`."""
        wish = Invite(name=name, role="node", hosts=list(hosts), life_s=INVITATION_S)
        invitation = await self._client.invite(wish)
        return encode_token(
            Token(
                gateway=self._gateway,
                authority_sha256=invitation.authority_sha256,
                role="node",
                secret=invitation.secret,
            )
        )

    async def drain(self, name: str) -> None:
        """See `Cloud`."""
        await self._client.drain(Drain(node_id=name))

    async def needed_objects(self, name: str) -> int:
        """See `Cloud`. A node that does not drain counts as needed: nobody has looked."""
        nodes = await self.nodes()
        if name not in nodes:
            return 0
        return nodes[name].needed_objects if nodes[name].draining else 1

    async def revoke(self, name: str) -> None:
        """See `Cloud`."""
        try:
            await self._client.revoke(name)
        except NotStoredError:
            return  # it never enrolled

    async def tell_domain(self, name: str, domain: str) -> None:
        """See `Cloud`."""
        await self._client.tell_domain(TellDomain(name=name, domain=domain))


def _node(status: NodeStatus, drain: DrainStatus | None) -> Node:
    return Node(
        name=status.node_id,
        state=status.state,
        silent_s=status.heartbeat_age_s,
        draining=drain is not None,
        needed_objects=_needed(drain),
        free_bytes=status.free_bytes,
        total_bytes=status.free_bytes + status.used_bytes + status.trash_bytes,
    )


def _needed(drain: DrainStatus | None) -> int:
    if drain is None or drain.safe:
        return 0
    return max(1, drain.left_objects + drain.claimed_objects)
