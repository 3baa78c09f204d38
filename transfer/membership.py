"""Who takes part: the words of invitation, enrolment, renewal and revocation, as JSON (docs/security.md).

A party's name is unique in its cluster. Times are Unix seconds. Refuses to do: HTTP, keys, keeping anything.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from transfer.api import Body
from transfer.protocol.messages import NodeId

PartyRole = Literal["workstation", "node", "operator", "administrator"]
PartyName = NodeId
KeyHex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Host = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")]
Pem = Annotated[str, Meta(max_length=8192)]
INVITATION_S_MAX: Final = 24 * 3600.0


class Trust(Body, frozen=True):
    """`GET /api/v1/trust`, by nodes: whose tickets count, and whose certificates do not any more.

    `keys`: of tickets, the newest first. `epoch`: tickets of an earlier one are refused. `revoked`: by name, the
    certificates that begin (`notBefore`) at this moment or earlier.
    """

    keys: Annotated[list[KeyHex], Meta(min_length=1, max_length=2)]
    epoch: Annotated[int, Meta(ge=0, le=1 << 53)]
    revoked: dict[PartyName, int]


class RotateKeys(Body, frozen=True):
    """`POST /api/v1/keys`: a new key for tickets; with `revoke_tickets` all that are out there end."""

    revoke_tickets: bool = False


class Revoke(Body, frozen=True):
    """`POST /api/v1/revocations`: ends every certificate that this party has."""

    name: PartyName


class Invite(Body, frozen=True):
    """`POST /api/v1/invitations`: who may enrol; its certificate will be good for `hosts` (names and addresses)."""

    name: PartyName
    role: PartyRole
    hosts: Annotated[list[Host], Meta(max_length=16)] = msgspec.field(default_factory=list)
    life_s: Annotated[float, Meta(gt=0, le=INVITATION_S_MAX)] = 900.0


class Invitation(Body, frozen=True):
    """The answer: the secret of one enrolment, said once, and the SHA-256 of the authority's certificate."""

    secret: str
    authority_sha256: KeyHex
    expires_at_s: float


class Enrol(Body, frozen=True):
    """`POST /api/v1/enrolments`, without a certificate.

    `request`: a certificate signing request (its subject counts for nothing); `public_key` and `proof`, of nodes only:
    the key of its receipts, and its signature over the request, which shows that the node has the private half.
    """

    secret: Annotated[str, Meta(max_length=128)]
    request: Pem
    public_key: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    proof: Annotated[bytes, Meta(max_length=64)] = b""


class Enrolled(Body, frozen=True):
    """The answer: the certificate, and what a node's configuration must say of this gateway."""

    name: PartyName
    role: PartyRole
    certificate: Pem
    gateway_public_key: KeyHex
    heartbeat_port: int
    plain: bool


class Renewed(Body, frozen=True):
    """The answer to `POST /api/v1/renewals`: a certificate of the same name, role, hosts and key that lasts longer."""

    certificate: Pem


class TellDomain(Body, frozen=True):
    """`POST /api/v1/domains`: the failure domain that a node is in now, whatever its own configuration says.

    For those who know better than the node: machines are moved from host to host. '' takes the word back.
    """

    name: PartyName
    domain: Annotated[str, Meta(max_length=255)]


class PartyStatus(Body, frozen=True):
    """One party that was enrolled or revoked here."""

    name: str
    role: str
    enrolled_at_s: int
    revoked: bool


class Parties(Body, frozen=True):
    """`GET /api/v1/parties`."""

    parties: list[PartyStatus]


class AuditHead(Body, frozen=True):
    """`GET /api/v1/audit/head`: how many lines the audit trail has, and the hash of the last: an anchor to keep."""

    count: int
    hash: str


class Done(Body, frozen=True):
    """An answer that says no more than that it is done, durably."""

    done: bool = True
