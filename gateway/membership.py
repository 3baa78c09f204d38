"""Who takes part in the cluster: invitations, enrolment, renewal, revocation, keys of tickets; all without a restart.

Nodes of the configuration file take part from the start, enrolled ones from their enrolment on, and nobody after being
revoked until enrolled anew. Refuses to do: HTTP, deciding who may ask (`gateway.access`).
"""

import asyncio
import hashlib
import secrets
import time
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from gateway.audit import Audit
from gateway.liveness import Nodes
from gateway.register import Invited, Party, Record, Register
from gateway.settings import GatewaySettings
from gateway.signatures import NodeKeys
from gateway.signing import SigningKeys
from transfer import enrolment, pki
from transfer.errors import ConflictError, NotStoredError, ProtocolError, UnauthorisedError
from transfer.membership import (
    Enrol,
    Enrolled,
    Invitation,
    Invite,
    Parties,
    PartyStatus,
    Renewed,
    TellDomain,
    Trust,
)
from transfer.tls import Peer

SECRET_BYTES: Final = 32
INVITED_MAX: Final = 1000
_BACKDATED_S: Final = int(pki.CLOCK_SKEW.total_seconds())  # a certificate begins so much before it is made


class Membership:
    """The parties of one cluster, at its gateway."""

    def __init__(
        self,
        config: GatewaySettings,
        *,
        register: Register,
        signing: SigningKeys,
        keys: NodeKeys,
        nodes: Nodes,
        audit: Audit,
    ) -> None:
        """Let in whom the register says.

        Raises:
            SettingsError: the authority's folder is configured and cannot be read.
        """
        self._config, self._register, self._signing = config, register, signing
        self._keys, self._nodes, self._audit = keys, nodes, audit
        self._authority = pki.load_authority(Path(config.authority)) if config.authority else None
        self._gateway_key = pki.load_signing_key(Path(config.identity)).public_key().public_bytes_raw().hex()
        self.heartbeat_port = 0  # told when it is open
        record = register.record
        nodes.place(record.domains)
        for name in record.revoked:
            self._forget(name)
        for name, party in record.parties.items():
            if party.role == "node" and not record.is_revoked(name, party.not_before_s):
                self._admit(name, party)

    def is_revoked(self, peer: Peer) -> bool:
        """Tell whether the certificate was revoked."""
        return self._register.is_revoked(peer)

    def trust(self) -> Trust:
        """Return what nodes are to trust."""
        return self._signing.trust()

    async def rotate(self, by: Peer, *, revoke_tickets: bool) -> None:
        """Make a new key for tickets (`gateway.signing`)."""
        trust = await self._signing.rotate(revoke_tickets=revoke_tickets)
        await self._audit.note("keys_rotated", by.name, epoch=trust.epoch, keys=[key[:16] for key in trust.keys])

    def authority_pem(self) -> str:
        """Return the certificate of the cluster's authority."""
        return (Path(self._config.identity) / "ca.pem").read_text("ascii")

    async def invite(self, wish: Invite, by: Peer) -> Invitation:
        """Let `wish.name` enrol once, with the secret that is answered.

        Raises:
            ConflictError: no authority here, a name that has another role, or too many invitations.
        """
        self._require_authority()
        secret = secrets.token_urlsafe(SECRET_BYTES)
        now_s = time.time()
        invited = Invited(name=wish.name, role=wish.role, hosts=wish.hosts, expires_at_s=now_s + wish.life_s)

        def edit(record: Record) -> tuple[Record, None]:
            self._check_name(record, wish)
            waiting = {key: each for key, each in record.invited.items() if each.expires_at_s > now_s}
            if len(waiting) >= INVITED_MAX:
                raise ConflictError(f"{INVITED_MAX} invitations wait already; let them be used or end")
            return replace(record, invited=waiting | {_digest(secret): invited}), None

        await self._register.change(edit)
        await self._audit.note("party_invited", by.name, about=wish.name, role=wish.role)
        certificate = x509.load_pem_x509_certificate(self.authority_pem().encode())
        fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        return Invitation(secret=secret, authority_sha256=fingerprint, expires_at_s=invited.expires_at_s)

    async def enrol(self, wish: Enrol) -> Enrolled:
        """Use an invitation up, and answer the certificate.

        Raises:
            UnauthorisedError: no such invitation, or it was used or has ended; a node without proof of its key; a name
                that is revoked meanwhile.
            ProtocolError: a request that is none; the invitation is used up all the same.
            ConflictError: the clock stands before the name's revocation, or the name has another role by now.
        """
        authority = self._require_authority()
        invited, revoked_s = await self._register.change(lambda record: _take(record, wish.secret, time.time()))
        is_node = invited.role == "node"
        if is_node:
            enrolment.check_proof(wish.request, wish.public_key, wish.proof)
        await self._wait_past_revocation(invited.name)
        certificate = enrolment.issue(
            authority, wish.request, name=invited.name, role=invited.role, hosts=invited.hosts
        )
        party = Party(
            role=invited.role,
            hosts=invited.hosts,
            public_key=wish.public_key if is_node else "",
            enrolled_at_s=int(time.time()),
            not_before_s=int(certificate.not_valid_before_utc.timestamp()),
        )

        def edit(record: Record) -> tuple[Record, None]:
            if record.revoked.get(invited.name) != revoked_s:
                raise UnauthorisedError(f"`{invited.name}` was revoked while it enrolled; ask for a new invitation")
            self._check_name(record, invited)  # it may have enrolled since, by another invitation
            return replace(record, parties=record.parties | {invited.name: party}), None

        await self._register.change(edit)
        await self._audit.note("party_enrolled", invited.name, role=invited.role, **_named(certificate))
        if is_node and not self._register.record.is_revoked(invited.name, party.not_before_s):  # since
            self._admit(invited.name, party)
        return Enrolled(
            name=invited.name,
            role=invited.role,
            certificate=_pem(certificate),
            gateway_public_key=self._gateway_key,
            heartbeat_port=self.heartbeat_port,
            plain=self._config.plain,
        )

    async def renew(self, der: bytes | None, peer: Peer) -> Renewed:
        """Answer a certificate like the caller's that begins now.

        Raises:
            ConflictError: no authority here.
            ProtocolError: a key of another kind.
            UnauthorisedError: the caller is revoked by now.
        """
        authority = self._require_authority()
        role: Any = peer.role  # the table of roles let it in
        certificate = x509.load_der_x509_certificate(der or b"")
        renewed = await self._register.unless_revoked(  # one made during a revocation would begin after what it ends
            peer, lambda: enrolment.renew(authority, certificate, name=peer.name, role=role)
        )
        await self._audit.note("certificate_renewed", peer.name, role=peer.role, **_named(renewed))
        return Renewed(certificate=_pem(renewed))

    async def revoke(self, name: str, by: Peer) -> None:
        """End every certificate of `name` that there is, and its invitations, durably.

        Raises:
            ConflictError: the gateway's own name.
        """
        if name == self._config.gateway_id:
            raise ConflictError("a gateway does not revoke itself; make a new authority where its key is lost")
        await self._register.revoke(name, _begin_s)
        self._forget(name)
        self._nodes.place(self._register.record.domains)
        await self._audit.note("party_revoked", by.name, about=name)

    async def tell_domain(self, word: TellDomain, by: Peer) -> None:
        """Place a node in a failure domain, durably; its heartbeats' own word counts no more.

        Raises:
            NotStoredError: no node of that name.
        """
        if word.name not in self._nodes.node_ids:
            raise NotStoredError(f"`{word.name}` is not a node of this cluster; `fascicle status` lists them")
        if self._register.record.domains.get(word.name, "") == word.domain:
            return

        def edit(record: Record) -> tuple[Record, None]:
            others = {name: domain for name, domain in record.domains.items() if name != word.name}
            return replace(record, domains=others | ({word.name: word.domain} if word.domain else {})), None

        await self._register.change(edit)
        self._nodes.place(self._register.record.domains)
        await self._audit.note("domain_told", by.name, about=word.name, domain=word.domain)

    def parties(self) -> Parties:
        """Return who was enrolled or revoked here, by name."""
        record = self._register.record
        return Parties(parties=[_status(record, name) for name in sorted({*record.parties, *record.revoked})])

    def _admit(self, name: str, party: Party) -> None:
        self._keys.add(name, party.public_key)
        self._nodes.add(name)

    def _forget(self, name: str) -> None:
        self._keys.remove(name)
        self._nodes.remove(name)

    def _require_authority(self) -> pki.Authority:
        if self._authority is None:
            raise ConflictError("this gateway holds no authority (`authority` in its configuration), so enrols nobody")
        return self._authority

    def _check_name(self, record: Record, wish: Invite | Invited) -> None:
        known = record.parties.get(wish.name)
        if wish.name == self._config.gateway_id or (known is not None and known.role != wish.role):
            raise ConflictError(f"`{wish.name}` is the name of a {known.role if known else 'gateway'}; choose another")
        if wish.name in self._keys and wish.role != "node":
            raise ConflictError(f"`{wish.name}` is the name of a node; choose another")
        if not wish.name.isprintable():
            raise ProtocolError("a name is of a-z, 0-9, dots and hyphens")

    async def _wait_past_revocation(self, name: str) -> None:
        """Certificates begin at whole seconds: one that is made in the second of the revocation would be revoked.

        Raises:
            ConflictError: so would one that is made a second later: the clock was put back.
        """
        if self._register.record.is_revoked(name, _begin_s()):
            await asyncio.sleep(1.0)
        if self._register.record.is_revoked(name, _begin_s()):
            raise ConflictError(f"`{name}` was revoked at a later time than it is here; set the gateway's clock (NTP)")


def _take(record: Record, secret: str, now_s: float) -> tuple[Record, tuple[Invited, int | None]]:
    """Return the record without the invitation; and the invitation, and what is revoked of its name."""
    key = _digest(secret)
    invited = record.invited.get(key)
    if invited is None or invited.expires_at_s <= now_s:
        raise UnauthorisedError("the invitation is unknown, used or has ended; ask an administrator for a new one")
    left = {each: value for each, value in record.invited.items() if each != key}
    return replace(record, invited=left), (invited, record.revoked.get(invited.name))


def _begin_s() -> int:
    """Return when a certificate that is made now begins."""
    return int(time.time()) - _BACKDATED_S


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _named(certificate: x509.Certificate) -> dict[str, str]:
    return {"serial": f"{certificate.serial_number:x}"}


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _status(record: Record, name: str) -> PartyStatus:
    party = record.parties.get(name)
    if party is None:
        return PartyStatus(name=name, role="", enrolled_at_s=0, revoked=True)
    revoked = record.is_revoked(name, party.not_before_s)
    return PartyStatus(name=name, role=party.role, enrolled_at_s=party.enrolled_at_s, revoked=revoked)
