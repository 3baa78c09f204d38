"""Who may do what: the one table of operations and roles, and the guard that every route passes.

A caller is whom its TLS certificate names (`transfer.tls.Peer`); an operation that the table does not list is refused.
Refuses to do: which transfer belongs to whom (`gateway.transfers`).
"""

from functools import lru_cache
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from transfer.errors import UnauthorisedError
from transfer.tls import Peer, peer_from_der

STATE_KEY: Final = "tls_peer_der"  # where `gateway.connections` leaves the certificate
PUBLIC: Final = frozenset({"health", "metrics", "openapi"})
ROLES: Final[dict[str, frozenset[str]]] = {
    "open_transfer": frozenset({"workstation"}),
    "renew_ticket": frozenset({"workstation"}),
    "offer": frozenset({"workstation"}),
    "take_receipts": frozenset({"workstation"}),
    "commit": frozenset({"workstation"}),
    "list_objects": frozenset({"workstation", "operator"}),
    "list_studies": frozenset({"workstation", "operator"}),
    "open_read": frozenset({"workstation", "operator"}),
    "status": frozenset({"workstation", "operator"}),
    "list_events": frozenset({"workstation", "operator"}),
    "announce": frozenset({"node"}),
}

_peer = lru_cache(maxsize=1024)(peer_from_der)


def peer_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Peer:
    """Return who calls.

    Raises:
        UnauthorisedError: no certificate was shown, or one without a name and a role.
    """
    return _peer(connection.scope.get("state", {}).get(STATE_KEY))


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the caller in if the table says so.

    Raises:
        UnauthorisedError: it does not.
    """
    operation = str(handler.opt.get("operation", ""))
    if operation in PUBLIC:
        return
    peer = peer_of(connection)
    if peer.role not in ROLES.get(operation, frozenset()):
        raise UnauthorisedError(f"role `{peer.role[:32]}` may not {operation.replace('_', ' ')}")
