"""What a peer or a disc chose is shown on a terminal, and not obeyed by it."""

from pathlib import Path

import pytest

from agent.send import _print_summary, _Send
from agent.status import lines
from fascicle.cli import FAULT, _report
from transfer.api import NodeStatus, Status
from transfer.errors import NotDicomError, UnreachableError, UnusableFileError
from transfer.inspection import SourceFile
from transfer.outcomes import Outcome, SendOptions, SendResult
from transfer.printable import printable

EVIL = "\x1b[2J\x1b]0;title\x07\r"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain Ä 日本", "plain Ä 日本"), ("a\x1b[2Jb\r\n", "a\\x1b[2Jb\\r\\n"), ("\udcff\x9b", "\\udcff\\x9b"), ("", "")],
)
def test_it_is_one_line_of_what_can_be_seen(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_words_of_a_peer(capsys: pytest.CaptureFixture[str]) -> None:
    assert _report(UnreachableError(f"node-1: {EVIL}"), as_json=False) == UnreachableError.exit_code
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "node-1: \\x1b[2J" in told.err


def test_the_words_of_a_peer_beside_a_fault_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    both = ExceptionGroup("two", [UnreachableError(f"node-1: {EVIL}"), ZeroDivisionError("a fault")])
    assert _report(both, as_json=False) == FAULT
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "node-1: \\x1b[2J" in told.err
    assert "ZeroDivisionError: a fault" in told.err


def test_the_names_on_a_disc(capsys: pytest.CaptureFixture[str]) -> None:
    source = SourceFile(Path(EVIL), "x", 1)
    outcomes = [Outcome(source, error=NotDicomError("no")), Outcome(source, error=UnusableFileError(f"{EVIL}: empty"))]
    _print_summary(_Send(SendOptions(), as_json=False)._summary(SendResult(outcomes, None), 1.0, 0.0))
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert told.err.count("\\x1b[2J") == 1


def test_the_address_that_a_node_says_it_has() -> None:
    node = NodeStatus("node-1", f"{EVIL}:1", "live", 1, 1, 1, 1, 0.5)
    status = Status(objects=1, bytes=1, stored_bytes=1, studies=1, nodes=[node], transfers=[])
    assert "\x1b" not in "".join(lines(status))
