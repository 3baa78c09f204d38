"""Who may do what: the one table of operations and roles, and the one function that every route passes.

A caller is whom its TLS certificate names (`transfer.tls.Peer`); an operation that the table does not list is refused,
and so is every certificate that was revoked, at its next request. Refuses to do: which transfer belongs to whom
(`gateway.transfers`).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from transfer.errors import UnauthorisedError
from transfer.tls import Peer, peer_from_der

STATE_KEY: Final = "tls_peer_der"  # where `gateway.connections` leaves the certificate
PUBLIC: Final = frozenset({"health", "metrics", "openapi", "show_authority", "enrol"})
_SENDERS: Final = frozenset({"workstation"})
_READERS: Final = frozenset({"workstation", "operator"})
_WATCHERS: Final = frozenset({"workstation", "operator", "administrator"})
_KEEPERS: Final = frozenset({"operator", "administrator"})
_ADMINISTRATORS: Final = frozenset({"administrator"})
_NODES: Final = frozenset({"node"})
ROLES: Final[dict[str, frozenset[str]]] = {
    "open_transfer": _SENDERS,
    "renew_ticket": _SENDERS,
    "offer": _SENDERS,
    "take_receipts": _SENDERS,
    "commit": _SENDERS,
    "list_objects": _READERS,
    "list_studies": _READERS,
    "open_read": _READERS,
    "status": _WATCHERS,
    "list_events": _WATCHERS,
    "announce": _NODES,
    "read_trust": _NODES,
    "rotate_keys": _ADMINISTRATORS,
    "invite": _ADMINISTRATORS,
    "revoke": _ADMINISTRATORS,
    "tell_domain": _ADMINISTRATORS,
    "list_parties": _KEEPERS,
    "drain": _KEEPERS,
    "list_trash": _KEEPERS,
    "undo_trash": _KEEPERS,
    "put_orphans_aside": _KEEPERS,
    "purge_trash": _ADMINISTRATORS,
    "read_audit_head": _KEEPERS,
    "renew_certificate": frozenset({"workstation", "node", "operator", "administrator"}),
}

_peer = lru_cache(maxsize=1024)(peer_from_der)
Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], None]


def authorise(operation: str, peer: Peer | None, *, is_revoked: Callable[[Peer], bool]) -> None:
    """Check that the caller may do this; `peer` is None where no certificate was shown.

    Raises:
        UnauthorisedError: it may not.
    """
    if operation in PUBLIC:
        return
    if peer is None:
        raise UnauthorisedError("the peer showed no certificate")
    if is_revoked(peer):
        raise UnauthorisedError(f"the certificate of {peer.name[:64]} was revoked; enrol it anew")
    if peer.role not in ROLES.get(operation, frozenset()):
        raise UnauthorisedError(f"role `{peer.role[:32]}` may not {operation.replace('_', ' ') or 'do this'}")


def peer_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Peer:
    """Return who calls.

    Raises:
        UnauthorisedError: no certificate was shown, or one without a name and a role.
    """
    return _peer(certificate_of(connection))


def peer_from_certificate(der: bytes) -> Peer:
    """Return whom a certificate names; see `peer_of`."""
    return _peer(der)


def whoever(connection: ASGIConnection[Any, Any, Any, Any]) -> tuple[str, str]:
    """Return name and role of the caller, "" where it showed no certificate that has them."""
    try:
        peer = peer_of(connection)
    except UnauthorisedError:
        return "", ""
    return peer.name[:64], peer.role[:32]


def certificate_of(connection: ASGIConnection[Any, Any, Any, Any]) -> bytes | None:
    """Return the certificate (DER) that the caller showed."""
    der: bytes | None = connection.scope.get("state", {}).get(STATE_KEY)
    return der


def make_guard(is_revoked: Callable[[Peer], bool]) -> Guard:
    """Return the guard of all routes."""

    def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        operation = str(handler.opt.get("operation", ""))
        shown = certificate_of(connection) is not None and operation not in PUBLIC
        authorise(operation, peer_of(connection) if shown else None, is_revoked=is_revoked)

    return guard
