"""Whether the catalogue is older than what the audit trail tells: then it takes for orphans what it has forgotten.

A commit is in the catalogue before its line is in the trail. A trail whose last commit the catalogue does not know was
written beside a later catalogue, and this one was put back from a backup. That is noted in it for good; a catalogue
that is made anew from the nodes lists everything, and has its own line in the trail. Refuses to do: repairing it.
"""

from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from gateway.audit import TAIL_BYTES, log_path
from gateway.database import insert_new
from gateway.schema import meta, transfer
from transfer.errors import SettingsError
from transfer.protocol.messages import UNREADABLE

KEY: Final = "older_than_trail"


def last_commit(data: Path) -> str | None:
    """Return the id of the last transfer that the trail in this folder says was committed since the last rebuild.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        with log_path(data).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{log_path(data)}: cannot be read: {error.strerror}") from error
    for entry in map(_entry, reversed(lines)):
        if entry.get("event") == "transfer_committed":
            return str(entry.get("transfer_id", ""))
        if entry.get("event") == "catalogue_rebuilt":
            return None
    return None


def is_old(connection: Connection, transfer_id: str | None) -> bool:
    """Tell whether the catalogue lacks this transfer, or lacked one at an earlier start; note it."""
    committed = select(transfer.c.transfer_key).where(
        transfer.c.transfer_id == (transfer_id or ""), transfer.c.state == "committed"
    )
    if transfer_id is not None and connection.execute(committed).first() is None:
        insert_new(connection, meta, [{"key": KEY, "value": transfer_id}])
    return connection.execute(select(meta.c.value).where(meta.c.key == KEY)).first() is not None


def _entry(line: bytes) -> dict[str, Any]:
    """Return a line's JSON; none where the beginning of the line is cut off."""
    try:
        return msgspec.json.decode(line[line.index(b"{") :], type=dict[str, Any])
    except (ValueError, *UNREADABLE):
        return {}
