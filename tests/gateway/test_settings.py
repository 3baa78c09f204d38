"""The gateway's settings: what is refused, and how it is said."""

from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from transfer import settings
from transfer.errors import SettingsError

GOOD = """
gateway_id = "gateway-1"
data = "d"
identity = "i"
listen = "127.0.0.1:8443"
heartbeat_listen = "[::1]:8444"
[[node]]
node_id = "node-1"
public_key = "{key}"
""".format(key="ab" * 32)


def load(tmp_path: Path, text: str) -> GatewaySettings:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return settings.load(GatewaySettings, path, {})


def test_good(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD)
    assert (found.plain, found.silent_after_s, found.node[0].node_id) == (False, 10.0, "node-1")
    assert found.database == Path("d/catalogue.db")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("listen = ", "lisen = ", "did you mean `listen`"),
        ("node_id", "nodeid", "did you mean `node_id`"),
        ("127.0.0.1:8443", "127.0.0.1", "is not an address"),
        ("127.0.0.1:8443", "127.0.0.1:99999", "is not an address"),
        ("ab" * 32, "xy", "node"),
        ('data = "d"', "data = 1", "data"),
        ('data = "d"', 'data = "d"\nsilent_after_s = 0', "silent_after_s"),
        ('data = "d"', 'data = "d"\nlog_level = "loud"', "log_level"),
    ],
)
def test_bad(tmp_path: Path, before: str, after: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(tmp_path, GOOD.replace(before, after, 1))


def test_one_node_twice(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="more than once"):
        load(tmp_path, GOOD + '[[node]]\nnode_id = "node-1"\npublic_key = "' + "ab" * 32 + '"')
