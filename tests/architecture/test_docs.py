"""The documents keep up with the code: error codes, frame types, links."""

import re
from pathlib import Path

import pytest

from gateway.metrics import Metrics as GatewayMetrics
from nodes.metrics import Metrics as NodeMetrics
from transfer import errors
from transfer.protocol.messages import FrameType
from xen.metrics import Metrics as PoolMetrics

ROOT = Path(__file__).parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def codes(kind: type[errors.FascicleError]) -> set[str]:
    return {kind.code}.union(*(codes(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize("name", ["protocol.md", "operations.md"])
def test_every_error_is_explained(name: str) -> None:
    text = (ROOT / "docs" / name).read_text()
    assert {code for code in codes(errors.FascicleError) if f"`{code}`" not in text} == set()


def test_the_table_of_errors_says_what_the_code_does() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (yes|no) \| (\d+) \| (\d) \| ([0-9A-F]{4}) \|",
        (ROOT / "docs/protocol.md").read_text(),
        re.MULTILINE,
    )
    for code, retryable, http_status, exit_code, dimse_status in rows:
        kind = type(errors.from_code(code, ""))
        assert kind.code == code
        assert (retryable == "yes", int(http_status), int(exit_code), int(dimse_status, 16)) == (
            kind.retryable,
            kind.http_status,
            kind.exit_code,
            kind.dimse_status,
        ), code


def test_every_frame_is_in_the_table() -> None:
    text = (ROOT / "docs/protocol.md").read_text()
    assert [kind.name for kind in FrameType if not re.search(rf"^\|.*\b{kind.name}\b", text, re.MULTILINE)] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_metric_is_explained() -> None:
    node = NodeMetrics(free_bytes=int, objects=int, flows=int)
    registries = [GatewayMetrics().registry, node.registry, PoolMetrics().registry]
    names = {metric.name for registry in registries for metric in registry.collect()}
    text = (ROOT / "docs/metrics.md").read_text()
    assert len(names) > 10
    assert {name for name in names if f"`{name}" not in text} == set()
