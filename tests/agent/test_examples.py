"""Every example is read by the real thing."""

import configparser
from pathlib import Path

import pytest

from agent.scp import ScpSettings
from agent.settings import DestinationSettings, SpoolSettings, load_settings
from gateway.settings import GatewaySettings
from nodes.service import NodeSettings
from transfer import settings

EXAMPLES = Path(__file__).parents[2] / "examples"
UNITS = sorted(EXAMPLES.glob("*.service"))


def test_agent() -> None:
    found = load_settings(EXAMPLES / "agent.toml")
    assert [each.name for each in found.destination] == ["cloud"]
    assert found.destination[0].replicas == 2
    assert found.watch[0].folder == "/var/lib/fascicle-agent/outbox"
    assert found.spool == SpoolSettings(folder=str(EXAMPLES / "spool"))
    assert found.scp == ScpSettings()
    assert found.destination[0].encoding == DestinationSettings(name="x", credentials="x").encoding


def test_gateway() -> None:
    found = settings.load(GatewaySettings, EXAMPLES / "gateway.toml")
    assert [each.node_id for each in found.node] == ["node-1", "node-2"]


def test_node() -> None:
    found = settings.load(NodeSettings, EXAMPLES / "node.toml")
    assert (found.node_id, found.plain) == ("node-1", False)


def test_all_units_are_here() -> None:
    assert [unit.name for unit in UNITS] == [
        "fascicle-agent.service",
        "fascicle-gateway.service",
        "fascicle-node@.service",
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_restart_and_are_confined(unit: Path) -> None:
    read = configparser.ConfigParser(interpolation=None, strict=True)
    read.optionxform = str
    read.read(unit)
    service = read["Service"]
    assert service["Restart"] == "always"
    assert read["Unit"]["StartLimitIntervalSec"] == "0"
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")
    assert service["StateDirectory"].startswith("fascicle-")
    assert service["ExecStart"].startswith("/usr/bin/env fascicle ")
