"""`fascicle init`: authority, gateway and administrator of a cluster that is spread over machines, in one folder.

    DIR/pki/{ca.pem,ca.key.pem,gateway/,administrator/}     DIR/administrator.json
    DIR/gateway/{gateway.toml,identity/}

Nodes and everybody else join by `fascicle invite` and `fascicle enroll`. The authority's key is in DIR/pki, where the
gateway reads it to enrol parties: whoever reads that file decides who takes part. Refuses to do: starting anything,
touching a folder that has a gateway already.
"""

from pathlib import Path
from typing import Final

import msgspec

from fascicle.layout import to_toml
from fascicle.ports import join
from transfer import credentials, pki
from transfer.durable import write_file_durably
from transfer.errors import SettingsError, StorageError

ADMINISTRATOR: Final = "administrator"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `fascicle init` was asked for; `host` is how all others reach the gateway."""

    data: Path
    host: str
    port: int
    heartbeat_port: int
    listen: str
    replicas: int


class Initialised(msgspec.Struct, frozen=True, kw_only=True):
    """What was made."""

    gateway: str
    config: str
    administrator: str
    authority_key: str


def prepare(options: Options) -> Initialised:
    """Make the folder.

    Raises:
        SettingsError: it has a gateway already, or cannot be written.
    """
    data = options.data.expanduser().resolve()
    config = data / "gateway/gateway.toml"
    if config.exists():
        raise SettingsError(f"{data} has a gateway already; start it, or choose another folder")
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)  # what it will hold is nobody else's business
    except OSError as error:
        raise SettingsError(f"{data}: cannot be made: {error.strerror}") from error
    authority = pki.create_authority(data / "pki")
    hosts = sorted({*pki.LOCAL_HOSTS, options.host})
    pki.issue(authority, data / "pki/gateway", name="gateway", role="gateway", hosts=hosts)
    pki.install(data / "pki/gateway", data / "gateway/identity")
    pki.issue(authority, data / "pki/administrator", name=ADMINISTRATOR, role="administrator")
    url = f"https://{join(options.host, options.port)}"
    credentials.save(credentials.from_identity(url, data / "pki/administrator"), data / "administrator.json")
    table = {
        "gateway_id": "gateway",
        "data": str(data / "gateway"),
        "identity": str(data / "gateway/identity"),
        "authority": str(data / "pki"),
        "listen": join(options.listen, options.port),
        "heartbeat_listen": join(options.listen, options.heartbeat_port),
        "default_replicas": options.replicas,
    }
    try:
        write_file_durably(config, to_toml(table).encode())  # last: a folder that has it is whole
    except StorageError as error:
        raise SettingsError(f"{config}: cannot be written: {error.message}") from error
    return Initialised(
        gateway=url,
        config=str(config),
        administrator=str(data / "administrator.json"),
        authority_key=str(data / "pki/ca.key.pem"),
    )
