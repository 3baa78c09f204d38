"""`fascicle enroll` at a node's folder: what it keeps of what stood there, and what it asks for first."""

import io
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from fascicle.cli import main
from fascicle.enrolling import Options, join_cluster
from tests.gateway.kit import Gateway, Identities, settings
from transfer.errors import SettingsError
from transfer.joining import JoiningClient, Token, encode_token
from transfer.membership import Invite


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    running = Gateway(identities, settings(identities, tmp_path / "gateway", authority=str(identities.folder / "ca")))
    yield running
    running.stop()


async def token(gateway: Gateway, name: str) -> str:
    async with JoiningClient(gateway.identities.credentials("admin-1", gateway.port), patience_s=0) as client:
        invitation = await client.invite(Invite(name=name, role="node", hosts=["127.0.0.1"]))
    return encode_token(
        Token(
            gateway=f"https://127.0.0.1:{gateway.port}",
            authority_sha256=invitation.authority_sha256,
            role="node",
            secret=invitation.secret,
        )
    )


def read(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "node.toml").read_text())


async def test_a_node_that_enrols_anew_stays_where_it_was(gateway: Gateway, tmp_path: Path) -> None:
    """Another key, or the name made good again: what it shares its fate with, and where it is reached, is the same."""
    folder = tmp_path / "node"
    listen, advertise = "0.0.0.0:9001", "127.0.0.1:9001"
    await join_cluster(
        Options(
            token=await token(gateway, "n-1"), data=folder, listen=listen, advertise=advertise, failure_domain="rack-1"
        )
    )
    first = read(folder)
    await join_cluster(Options(token=await token(gateway, "n-1"), data=folder, listen=listen))
    assert read(folder) == first | {"identity": str(folder / "identity-2")}


async def test_what_follows_from_name_and_port_follows_them_again(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    await join_cluster(Options(token=await token(gateway, "n-1"), data=folder, listen="127.0.0.1:9001"))
    await join_cluster(Options(token=await token(gateway, "n-2"), data=folder, listen="127.0.0.1:9002"))
    again = read(folder)
    assert (again["node_id"], again["failure_domain"]) == ("n-2", "n-2")
    assert again["listen"] == again["advertise"] == "127.0.0.1:9002"


@pytest.mark.parametrize("listen", ["0.0.0.0:9001", "[::]:9001"])
async def test_every_address_is_none_that_others_could_be_told(gateway: Gateway, tmp_path: Path, listen: str) -> None:
    text = await token(gateway, "n-1")
    with pytest.raises(SettingsError, match="--advertise"):
        await join_cluster(Options(token=text, data=tmp_path / "node", listen=listen))
    await join_cluster(Options(token=text, data=tmp_path / "node", listen=listen, advertise="127.0.0.1:9001"))


async def test_a_configuration_that_cannot_be_read_does_not_use_the_token_up(gateway: Gateway, tmp_path: Path) -> None:
    folder, text = tmp_path / "node", await token(gateway, "n-1")
    folder.mkdir()
    (folder / "node.toml").write_text("reserve_bytes = \n")
    with pytest.raises(SettingsError, match="cannot be read"):
        await join_cluster(Options(token=text, data=folder, listen="127.0.0.1:9001"))
    (folder / "node.toml").write_text("reserve_bytes = 5\n")
    await join_cluster(Options(token=text, data=folder, listen="127.0.0.1:9001"))
    assert read(folder)["reserve_bytes"] == 5


def test_a_token_can_be_given_where_the_list_of_processes_does_not_show_it(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = trio.run(token, gateway, "n-1")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{text}\n"))
    words = ["enroll", "--token", "-", "--data", str(tmp_path / "node"), "--listen", "127.0.0.1:9001"]
    assert main(words) == 0
    assert read(tmp_path / "node")["node_id"] == "n-1"
