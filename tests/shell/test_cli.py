"""The command line: what is understood, what is refused, and how errors leave."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fascicle import cli
from fascicle.arguments import make_parser
from transfer.errors import FullError, SettingsError, UnreachableError

OBJECT = "ab" * 32


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("send a b --to c", {"encoding": "auto", "flows": None, "nodes": None, "replicas": None, "congestion": "auto"}),
        ("send a --to c --flows 4 --nodes auto --replicas 2", {"flows": 4, "nodes": None, "replicas": 2}),
        ("send a --to c --any-file --json", {"any_file": True, "json": True, "paths": [Path("a")]}),
        ("get --all out --to c", {"all": True, "out": Path("out"), "study": None}),
        ("get --study 1.2.840.0 out --to c", {"study": "1.2.840.0", "all": False}),
        (f"get --object {OBJECT} out --to c", {"object": OBJECT}),
        ("verify --to c --deep", {"deep": True, "json": False}),
        ("status --to c --watch", {"watch": True}),
        ("up --data d", {"nodes": None, "host": "127.0.0.1", "port": 8443, "replicas": None, "plain": False}),
        ("up --data d --port 0 --plain --paper-port 0", {"port": 0, "plain": True, "paper_port": 0}),
        ("node serve --config f", {"action": "serve", "config": Path("f")}),
        ("gateway serve --config f", {"action": "serve"}),
        ("gateway rebuild --config f", {"action": "rebuild", "keep_aside": False, "without": [], "wait": 60}),
        (
            "gateway rebuild --config f --without a --without b --keep-aside",
            {"keep_aside": True, "without": ["a", "b"]},
        ),
        ("agent run --config f", {"action": "run"}),
    ],
)
def test_what_is_understood(words: str, expected: dict[str, object]) -> None:
    arguments = vars(make_parser().parse_args(words.split()))
    assert {key: arguments[key] for key in expected} == expected


@pytest.mark.parametrize(
    "words",
    [
        "",
        "fly",
        "send --to c",
        "send a",
        "send a --to c --flows 0",
        "send a --to c --flows many",
        "send a --to c --flows 1e3",
        "send a --to c --nodes -1",
        "send a --to c --replicas 17",
        "send a --to c --replicas auto",
        "send a --to c --congestion reno",
        "init d --host h --port 0",
        "init d --host h --heartbeat-port 0",
        "send a --to c --fl 3",
        "send a --to c --encoding jpeg",
        "get out --to c",
        "get --all --study 1.2 out --to c",
        "get --study ../../x out --to c",
        "get --study 1..2 out --to c",
        f"get --study {'1' * 65} out --to c",
        "get --object ABAB out --to c",
        "up",
        "up --data d --nodes 0",
        "up --data d --nodes 1000000000000",
        "up --data d --port 65536",
        "up --data d --host 0.0.0.0",
        "node serve",
        "node fly --config f",
        "node",
    ],
)
def test_what_is_refused_with_one_line_and_exit_2(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("fascicle: ")
    assert output.err.count("\n") == 1


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def command(_: object) -> int:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "verify", command)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UnreachableError("nobody there"), 3, "fascicle: nobody there\n"),
        (SettingsError("two\nlines"), 2, "fascicle: two lines\n"),
        (ExceptionGroup("x", [ExceptionGroup("y", [FullError("no room")])]), 1, "fascicle: no room\n"),
        (ExceptionGroup("x", [FullError("no room"), UnreachableError("gone")]), 3, "fascicle: gone\n"),
        (KeyboardInterrupt(), 130, ""),
        (BaseExceptionGroup("x", [KeyboardInterrupt()]), 130, ""),
    ],
)
def test_errors_of_ours_leave_as_one_line_and_their_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    raising(monkeypatch, error)
    assert cli.main(["verify", "--to", "c"]) == code
    assert capsys.readouterr() == ("", line)


def test_programs_get_the_error_as_an_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, UnreachableError("nobody there"))
    assert cli.main(["verify", "--to", "c", "--json"]) == 3
    error = {"code": "unreachable", "message": "nobody there", "exit_code": 3}
    assert json.loads(capsys.readouterr().out) == {"error": error}


@pytest.mark.parametrize("error", [RuntimeError("fault"), ExceptionGroup("x", [FullError("full"), KeyError("fault")])])
def test_a_fault_of_ours_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    raising(monkeypatch, error)
    assert cli.main(["verify", "--to", "c"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_and_version_need_none_of_the_heavy_modules() -> None:
    code = (
        "import sys; from fascicle import cli\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'trio', 'httpx', 'cryptography', 'structlog', 'rich', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version.startswith("fascicle ")
    assert modules == "[]"


def test_a_reader_that_goes_away_is_no_fault() -> None:
    code = (
        "import sys; from fascicle import cli\n"
        "def command(_):\n"
        "    for _ in range(100_000): print('x' * 100)\n"
        "    return 0\n"
        "cli.COMMANDS['verify'] = command\n"
        "sys.exit(cli.main(['verify', '--to', 'c']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
