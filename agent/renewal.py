"""Certificates in CREDENTIALS files are renewed while the agent runs: asked of the gateway when a third is left.

The key stays, so one file changes, in one step, and the next batch reads it; what is being sent goes on with the old
certificate, which is good until its end. One that has ended cannot ask any more: enrol anew. Refuses to do: new keys.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final, Never

import msgspec
import trio
from cryptography import x509

from transfer import credentials
from transfer.credentials import Credentials
from transfer.enrolment import check_begun, is_due
from transfer.errors import FascicleError, SettingsError
from transfer.joining import JoiningClient
from transfer.log import get_logger

LOOK_S: Final = 3600.0
log = get_logger()


def certificate_of(loaded: Credentials) -> x509.Certificate | None:
    """Return the own certificate; None where it is none, which `transfer.tls.client_context` tells."""
    try:
        return x509.load_pem_x509_certificate(loaded.certificate.encode())
    except ValueError:
        return None


async def keep_certificates(files: Collection[Path]) -> Never:
    """Look at each file every hour, for ever; where one cannot be renewed the log says so each time, and why."""
    while True:
        for path in files:
            await _keep(path)
        await trio.sleep(LOOK_S)


async def _keep(path: Path) -> None:
    ends = ""
    try:
        certificate = certificate_of(await trio.to_thread.run_sync(credentials.load, path))
        if certificate is None or not is_due(certificate):
            return
        ends = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        await renew(path, patience_s=0)
        log.info("certificate_renewed", file=str(path))
    except FascicleError as error:
        log.warning("certificate_not_renewed", file=str(path), ends=ends, code=error.code, reason=error.message)


async def renew(path: Path, *, patience_s: float) -> None:
    """Renew the certificate of a CREDENTIALS file now; a gateway that is away is waited for so long.

    Raises:
        FascicleError: no gateway, a refusal, or a file that cannot be written; the file stays as it was.
    """
    before = await trio.to_thread.run_sync(credentials.load, path)
    async with JoiningClient(before, patience_s=patience_s) as client:
        renewed = await client.renew_certificate()
    check_begun(renewed.certificate)
    if await trio.to_thread.run_sync(credentials.load, path) != before:  # enrolled anew: it may be of another key
        raise SettingsError(f"{path} was changed while its certificate was renewed, and is left as it is now")
    fresh = msgspec.structs.replace(before, certificate=renewed.certificate)
    await trio.to_thread.run_sync(credentials.save, fresh, path)
