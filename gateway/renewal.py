"""The gateway's own certificate is renewed while it runs, where it holds the authority.

The key stays; one file changes in one step, and the TLS contexts take it for their next handshake. Where the authority
is elsewhere its operator renews it, and starts the gateway anew: the log says every hour that it is due. Refuses to do:
anything more there.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Never

from cryptography.hazmat.primitives.serialization import Encoding

from gateway.settings import GatewaySettings
from transfer import enrolment, pki, tls
from transfer.durable import write_file_durably
from transfer.errors import FascicleError, SettingsError
from transfer.log import get_logger
from transfer.tls import Peer

LOOK_S: Final = 3600.0


def own_peer(config: GatewaySettings) -> Peer:
    """Return whom the gateway's certificate names.

    Raises:
        SettingsError: it cannot be read.
    """
    certificate = pki.load_certificate(Path(config.identity) / "certificate.pem")
    return tls.peer_from_der(certificate.public_bytes(Encoding.DER))


def renew(config: GatewaySettings, contexts: Sequence[ssl.SSLContext]) -> None:
    """Renew the certificate now (blocks for a flush).

    Raises:
        FascicleError: authority, identity or disk cannot be used, or no authority is here; the old certificate stays.
    """
    identity = Path(config.identity)
    peer = own_peer(config)
    certificate = pki.load_certificate(identity / "certificate.pem")
    if not config.authority:
        raise SettingsError(
            f"the gateway's certificate ends at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and no authority "
            "is here to renew it: put it back for a while (`authority`), and start the gateway anew"
        )
    fresh = enrolment.renew(pki.load_authority(Path(config.authority)), certificate, name=peer.name, role="gateway")
    write_file_durably(identity / "certificate.pem", fresh.public_bytes(Encoding.PEM), pki.PUBLIC)
    for context in contexts:
        tls.load_identity(context, identity)


async def keep_certificate(
    config: GatewaySettings, contexts: Sequence[ssl.SSLContext], on_renewed: Callable[[Peer], None]
) -> Never:
    """Look every hour, for ever."""
    while True:
        try:
            if enrolment.is_due(pki.load_certificate(Path(config.identity) / "certificate.pem")):
                renew(config, contexts)
                on_renewed(own_peer(config))
                get_logger().info("certificate_renewed")
        except FascicleError as error:
            get_logger().warning("certificate_not_renewed", code=error.code, reason=error.message)
        await asyncio.sleep(LOOK_S)
