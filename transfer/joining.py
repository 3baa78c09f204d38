"""How a party joins a cluster: the token of its invitation, the first talk with the gateway, and what it may ask later.

A token is `fascicle1.` and base64url of JSON: the gateway's URL, the SHA-256 of its authority's certificate, the
role, and the secret. The gateway is believed only when the authority that it shows has that digest and has issued its
certificate, so nobody in between learns the secret. Refuses to do: writing files, keys.
"""

import base64
import binascii
import hashlib
import ssl
from typing import Final, Literal

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from transfer.client import CONNECT_TIMEOUT_S, GatewayClient
from transfer.credentials import Credentials
from transfer.errors import SettingsError, UnauthorisedError, UnreachableError
from transfer.membership import (
    AuditHead,
    Done,
    Enrol,
    Enrolled,
    Invitation,
    Invite,
    Parties,
    PartyRole,
    Renewed,
    Revoke,
    RotateKeys,
    TellDomain,
)
from transfer.protocol.messages import UNREADABLE
from transfer.upkeep import Count, Drain, Drains, SomeTrash, TrashPage

PREFIX: Final = "fascicle1."
AUTHORITY_BYTES_MAX: Final = 64 << 10


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a token says."""

    gateway: str
    authority_sha256: str
    role: PartyRole
    secret: str

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"Token(gateway={self.gateway!r})"


def encode_token(token: Token) -> str:
    """Return the token's text."""
    return PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def decode_token(text: str) -> Token:
    """Read a token's text.

    Raises:
        SettingsError: not a token.
    """
    body = text.strip()[len(PREFIX) :] if text.strip().startswith(PREFIX) else ""
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Token)
    except (ValueError, binascii.Error, *UNREADABLE) as error:
        raise SettingsError("not a token of `fascicle invite`; copy it whole, without line breaks") from error
    if not token.gateway.startswith("https://"):
        raise SettingsError("the token names a gateway without TLS; it is not one of `fascicle invite`")
    return token


async def fetch_authority(token: Token) -> str:
    """Return the certificate (PEM) of the cluster's authority, checked against the token.

    Raises:
        UnreachableError: the gateway does not answer.
        UnauthorisedError: what answers is not the gateway of the token.
    """
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False  # nothing secret is said, and what is heard is judged by its digest
    unverified.verify_mode = ssl.CERT_NONE
    try:
        async with httpx.AsyncClient(verify=unverified, timeout=CONNECT_TIMEOUT_S, trust_env=False) as http:
            answer = await http.get(f"{token.gateway}/api/v1/authority")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnreachableError(f"the gateway at {token.gateway} does not answer: {error}") from error
    try:
        certificate = x509.load_pem_x509_certificate(answer.content[:AUTHORITY_BYTES_MAX])
        digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    except ValueError:
        digest = ""
    if digest != token.authority_sha256:
        raise UnauthorisedError(f"{token.gateway} is not the gateway of this token: another authority answers there")
    return certificate.public_bytes(Encoding.PEM).decode()


async def enrol(token: Token, authority: str, wish: Enrol) -> Enrolled:
    """Use the invitation up; `authority` is what `fetch_authority` returned.

    Raises:
        UnauthorisedError: the invitation is unknown, used or has ended.
        UnreachableError: no answer; the invitation may be used up.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    nobody = Credentials(gateway=token.gateway, ca=authority, certificate="", key="")
    async with JoiningClient(nobody, patience_s=0, context=context) as client:
        return await client.enrol(wish)


class JoiningClient(GatewayClient):
    """The calls of membership; those of administrators too (the gateway judges the role)."""

    async def enrol(self, wish: Enrol) -> Enrolled:
        """See `enrol`."""
        return await self._post("/api/v1/enrolments", wish, Enrolled)

    async def renew_certificate(self) -> Renewed:
        """Return a certificate like one's own that lasts longer."""
        return await self._post("/api/v1/renewals", None, Renewed)

    async def invite(self, wish: Invite) -> Invitation:
        """Let a party enrol once."""
        return await self._post("/api/v1/invitations", wish, Invitation)

    async def revoke(self, name: str) -> Done:
        """End every certificate of a party."""
        return await self._post("/api/v1/revocations", Revoke(name=name), Done)

    async def tell_domain(self, word: TellDomain) -> Done:
        """Say which failure domain a node is in."""
        return await self._post("/api/v1/domains", word, Done)

    async def rotate_keys(self, *, revoke_tickets: bool) -> Done:
        """Make a new key for tickets."""
        return await self._post("/api/v1/keys", RotateKeys(revoke_tickets=revoke_tickets), Done)

    async def audit_head(self) -> AuditHead:
        """Return where the audit trail ends: an anchor to keep elsewhere."""
        return await self._get("/api/v1/audit/head", {}, AuditHead)

    async def drain(self, wish: Drain) -> Drains:
        """Have a node drain, or not."""
        return await self._post("/api/v1/drains", wish, Drains)

    async def trash(self, node_id: str, after: str) -> TrashPage:
        """Return a page of what a node put aside."""
        return await self._get("/api/v1/trash", {"node": node_id, "after": after}, TrashPage)

    async def change_trash(self, change: Literal["undo", "purge"], some: SomeTrash) -> int:
        """Have some of it put back, or deleted; return of how many that is done."""
        return (await self._post(f"/api/v1/trash/{change}", some, Count)).objects

    async def put_orphans_aside(self) -> int:
        """Have the next orphans put aside; return how many, 0 when there are no more."""
        return (await self._post("/api/v1/trash/orphans", None, Count)).objects

    async def parties(self) -> Parties:
        """Return who was enrolled or revoked."""
        return await self._get("/api/v1/parties", {}, Parties)
