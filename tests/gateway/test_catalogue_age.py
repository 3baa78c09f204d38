"""A catalogue that is lost, or an old copy of one, is noticed at the start; one made anew is not taken for old."""

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from gateway import catalogue_age, rebuilding
from gateway.audit import Audit, log_path
from gateway.database import Database
from gateway.settings import GatewaySettings
from tests.gateway.kit import TRANSFERS, Gateway, Identities, Node, claim, images, post, settings, upload
from transfer import pki
from transfer.api import Offer, OpenTransfer, Receipts
from transfer.errors import SettingsError


def committed(identities: Identities, config: GatewaySettings, *seeds: str) -> list[str]:
    """Run a gateway for a transfer of each seed; return the transfers' ids."""
    gateway = Gateway(identities, config)
    node = Node(identities, "node-1", identities.public_key("gateway-1"))
    node.beat(gateway)
    try:
        return [upload(gateway.client("ws-1"), images(2, seed=seed), node)[0] for seed in seeds]
    finally:
        node.close()
        gateway.stop()


def test_a_catalogue_that_is_lost_is_not_begun_anew_in_silence(identities: Identities, tmp_path: Path) -> None:
    config = settings(identities, tmp_path / "gateway")
    (last,) = committed(identities, config, "a")
    for path in (tmp_path / "gateway").glob("catalogue.db*"):
        path.unlink()
    with pytest.raises(SettingsError, match=f"is lost: {last} was committed.*fascicle gateway rebuild"):
        Gateway(identities, config)
    assert not config.database.exists()


def test_an_old_copy_of_the_catalogue_is_noticed(identities: Identities, tmp_path: Path) -> None:
    config = settings(identities, tmp_path / "gateway")
    committed(identities, config, "a")
    shutil.copy(config.database, tmp_path / "old.db")
    committed(identities, config, "b", "c")
    shutil.copy(config.database, tmp_path / "new.db")
    shutil.copy(tmp_path / "old.db", config.database)
    with pytest.raises(SettingsError, match=r"older than.*2 of the last 3 commits"):
        Gateway(identities, config)
    shutil.copy(tmp_path / "new.db", config.database)
    assert len(committed(identities, config, "d")) == 1


def test_a_copy_that_has_as_open_what_was_committed_since_is_old(identities: Identities, tmp_path: Path) -> None:
    config = settings(identities, tmp_path / "gateway")
    gateway = Gateway(identities, config)
    sent = images(1)
    with contextlib.closing(Node(identities, "node-1", identities.public_key("gateway-1"))) as node:
        node.beat(gateway)
        client = gateway.client("ws-1")
        path = f"{TRANSFERS}/{post(client, TRANSFERS, OpenTransfer(replicas=1))['transfer_id']}"
        post(client, f"{path}/offer", Offer(objects=[image.offered() for image in sent]))
        with contextlib.closing(sqlite3.connect(config.database)) as source:
            source.execute("VACUUM INTO ?", [str(tmp_path / "old.db")])
        signed = node.sign([image.receipt("node-1") for image in sent], path.rpartition("/")[2])
        post(client, f"{path}/receipts", Receipts(receipts=[signed]))
        post(client, f"{path}/commit", claim(sent))
        gateway.stop()
    shutil.copy(tmp_path / "old.db", config.database)
    with pytest.raises(SettingsError, match=r"older than.*1 of the last 1 commits"):
        Gateway(identities, config)


def test_a_catalogue_made_anew_has_what_was_committed_before_without_its_transfers(
    identities: Identities, tmp_path: Path
) -> None:
    config = settings(identities, tmp_path / "gateway")
    committed(identities, config, "a")
    config.database.unlink()
    lines = catalogue_age.line_count(log_path(tmp_path / "gateway"))
    with contextlib.closing(Database(config.database)) as database:
        asyncio.run(database.write(lambda connection: rebuilding.finish(connection, ["node-1"], lines)))
    shutil.copy(config.database, tmp_path / "anew.db")
    committed(identities, config, "b")
    shutil.copy(tmp_path / "anew.db", config.database)
    with pytest.raises(SettingsError, match="1 of the last 2 commits"):
        Gateway(identities, config)


def test_a_trail_is_read_from_its_end_over_blocks_and_half_lines(identities: Identities, tmp_path: Path) -> None:
    key = pki.load_signing_key(identities["gateway-1"])
    with contextlib.closing(Audit(tmp_path, key)) as audit:
        for number in range(400):  # beyond one block
            event = catalogue_age.COMMITS[number % 20 // 10] if number % 10 == 0 else "read_opened"
            audit.note_nowait(event, "ws-1", transfer_id=str(number))
        audit.note_nowait("objects_announced", "node-1")  # as it was noted once, without its id
    with log_path(tmp_path).open("ab") as file:
        file.write(b"half a li")
    assert log_path(tmp_path).stat().st_size > catalogue_age.BLOCK_BYTES
    found = catalogue_age.last_commits(log_path(tmp_path))
    assert [line.transfer_id for line in found] == [str(390 - 10 * back) for back in range(catalogue_age.LAST)]
    assert catalogue_age.line_count(log_path(tmp_path)) == 401
    assert catalogue_age.last_commits(tmp_path / "none") == []
