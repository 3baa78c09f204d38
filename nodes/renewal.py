"""A node's certificate is renewed while it runs: asked of the gateway when a third of its life is left.

The key stays, so one file changes, in one step, and every TLS context takes the new certificate for its next handshake;
flows that are open go on. Refuses to do: new keys (enrol anew for one).
"""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Never

import trio

from transfer import credentials, enrolment, pki, tls
from transfer.durable import write_file_durably
from transfer.errors import FascicleError, SettingsError
from transfer.joining import JoiningClient
from transfer.log import get_logger

LOOK_S: Final = 3600.0
log = get_logger()


async def keep_certificate(gateway: str, identity: Path, contexts: Sequence[ssl.SSLContext]) -> Never:
    """Look every hour, for ever; a gateway that is away is asked again an hour later. `gateway` "": none is known."""
    while True:
        try:
            if enrolment.is_due(await trio.to_thread.run_sync(pki.load_certificate, identity / "certificate.pem")):
                await renew(gateway, identity, contexts)
        except FascicleError as error:
            log.warning("certificate_not_renewed", code=error.code, reason=error.message)
        await trio.sleep(LOOK_S)


async def renew(gateway: str, identity: Path, contexts: Sequence[ssl.SSLContext]) -> None:
    """Renew the certificate of an identity folder now.

    Raises:
        FascicleError: no gateway, no answer, a refusal, or a disk that failed; the old certificate stays.
    """
    if not gateway:
        raise SettingsError("the node's certificate is to be renewed, and `gateway` does not say where")
    async with JoiningClient(credentials.from_identity(gateway, identity), patience_s=0) as client:
        renewed = await client.renew_certificate()
    enrolment.check_begun(renewed.certificate)
    path = identity / "certificate.pem"
    await trio.to_thread.run_sync(write_file_durably, path, renewed.certificate.encode(), pki.PUBLIC)
    for context in contexts:
        tls.load_identity(context, identity)
    log.info("certificate_renewed")
