"""Who may associate with the C-STORE SCP: its settings, and the decision on one request as a pure function.

AE titles are names, not proofs: a site that needs more lists each title's addresses, and keeps the port inside its
imaging network. Refuses to do: I/O, counting.
"""

import ipaddress
from typing import Annotated

import msgspec
from msgspec import Meta

from transfer import addresses
from transfer.dimse import pdu
from transfer.dimse.pdu import AssociateRequest, Rejection
from transfer.errors import SettingsError

AeTitle = Annotated[str, Meta(min_length=1, max_length=16)]


class ScpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[scp]`: the port that scanners and workstations send to.

    `calling_ae_titles` maps an AE title to the addresses or networks that it may come from (none listed: from
    anywhere); an empty map lets every title in. No address has more than `max_associations_per_address` (0: three
    quarters of `max_associations`). `artim_s` bounds the wait for the request and for the end,
    `idle_timeout_s` the wait for each PDU between.
    """

    listen: str = "127.0.0.1:11112"
    ae_title: AeTitle = "FASCICLE"
    check_called_ae_title: bool = False
    calling_ae_titles: dict[AeTitle, list[str]] = {}
    max_associations: Annotated[int, Meta(ge=1, le=1024)] = 32
    max_associations_per_address: Annotated[int, Meta(ge=0, le=1024)] = 0
    max_pdu_bytes: Annotated[int, Meta(ge=pdu.MIN_PDU_BYTES, le=pdu.MAX_PDU_BYTES)] = 256 << 10
    artim_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    idle_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 120.0

    def __post_init__(self) -> None:
        try:
            addresses.parse(self.listen)
            for networks in self.calling_ae_titles.values():
                for network in networks:
                    ipaddress.ip_network(network, strict=False)
        except SettingsError as error:
            raise ValueError(f"listen: {error.message}") from error


def judge(request: AssociateRequest, settings: ScpSettings, *, host: str) -> Rejection | None:
    """Return why a request from address `host` is rejected, None when it is not (PS3.8 table 9-21)."""
    if not request.protocol_version & 1:
        return pdu.PROTOCOL_VERSION_NOT_SUPPORTED
    if request.application_context != pdu.APPLICATION_CONTEXT:
        return pdu.APPLICATION_CONTEXT_NOT_SUPPORTED
    if settings.check_called_ae_title and request.called_ae_title != settings.ae_title:
        return pdu.CALLED_AE_TITLE_NOT_RECOGNISED
    if settings.calling_ae_titles and not _may_call(request.calling_ae_title, settings, host):
        return pdu.CALLING_AE_TITLE_NOT_RECOGNISED
    return None


def _may_call(title: str, settings: ScpSettings, host: str) -> bool:
    networks = settings.calling_ae_titles.get(title)
    if not networks:
        return networks is not None
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in ipaddress.ip_network(network, strict=False) for network in networks)
