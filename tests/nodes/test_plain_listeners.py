"""A node says which of its ports have no TLS and can be reached by others."""

import pytest
from structlog.testing import capture_logs

from nodes.service import NodeSettings, warn_of_plain_listeners
from transfer.addresses import parse


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, []),
        ({"listen": "0.0.0.0:1"}, []),  # with TLS
        ({"plain": True}, []),
        ({"plain": True, "listen": "0.0.0.0:1"}, ["listen"]),
        ({"paper_listen": "10.1.1.1:7"}, ["paper_listen"]),
        ({"paper_listen": "[::1]:7", "metrics_listen": "localhost:8"}, []),
        ({"metrics_listen": "[::]:8", "plain": True, "listen": "pacs:1"}, ["listen", "metrics_listen"]),
    ],
)
def test_what_others_reach_without_tls_is_told(asked: dict[str, object], told: list[str]) -> None:
    fixed = {"node_id": "node-1", "data": "d", "identity": "i", "listen": "127.0.0.1:1", "heartbeat": "127.0.0.1:2"}
    loaded = NodeSettings(**(fixed | {"gateway_public_key": "0" * 64} | asked))  # type: ignore[arg-type]  # of a table
    with capture_logs() as logs:
        warn_of_plain_listeners(loaded)
    assert [(each["event"], each["key"]) for each in logs] == [("listener_without_tls", key) for key in told]


def test_which_addresses_are_this_machines_alone() -> None:
    assert [text for text in ("127.3.2.1:1", "[::1]:1", "localhost:1", "0.0.0.0:1", "[::]:1", "a.example:1")
            if parse(text).is_loopback] == ["127.3.2.1:1", "[::1]:1", "localhost:1"]  # fmt: skip
