"""The long campaign's own machinery: what a step must show, what is kept, and what is done again."""

import json
import sys
from pathlib import Path

import pytest

from tests.campaign import __main__ as command
from tests.campaign.steps import STEPS, Step


def saying(text: str, code: int = 0) -> Step:
    return Step(
        "one",
        lambda scaled: (sys.executable, "-c", f"print({text!r}); raise SystemExit({code})"),
        {"a/b": 100},
        ("bad",),
    )


@pytest.mark.parametrize(
    ("text", "code", "lacking"),
    [
        ('hello\n{"a": {"b": 10}, "bad": 0}', 0, []),
        ('{"a": {"b": 9}, "bad": []}', 0, ["a/b: wanted 10, found 9"]),
        ('{"a": {"b": 10}, "bad": 1}', 0, ["bad: wanted none, found 1"]),
        ('{"a": {"b": 10}}', 0, ["bad: wanted none, found nothing"]),
        ('{"a": {"b": 10}, "bad": 0}', 1, ["exit code 1"]),
        ("no object", 0, ["a/b: wanted 10, found nothing", "bad: wanted none, found nothing"]),
        ("", 0, ["a/b: wanted 10, found nothing", "bad: wanted none, found nothing"]),
    ],
)
def test_a_step_counts_only_when_it_shows_what_it_must(text: str, code: int, lacking: list[str]) -> None:
    assert command.run_step(saying(text, code), 0.1)["lacking"] == lacking


def test_what_did_not_show_it_is_done_again_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"

    def noting(name: str, bad: int) -> Step:
        code = f"open({str(log)!r}, 'a').write('{name} '); print('{{\"bad\": {bad}}}')"
        return Step(name, lambda _: (sys.executable, "-c", code), none=("bad",))

    monkeypatch.setattr(command, "STEPS", (noting("good", 0), noting("poor", 2)))
    words = ["--out", str(tmp_path), "--scale", "0.5"]
    assert (command.main(words), command.main(words), command.main([*words, "--only", "good"])) == (1, 1, 0)
    assert log.read_text().split() == ["good", "poor", "poor", "good"]
    (file,) = tmp_path.glob("*.json")
    kept = json.loads(file.read_text())
    assert kept["scale"] == 0.5 and kept["machine"]["kernel"]
    assert {name: step["lacking"] for name, step in kept["steps"].items()} == {
        "good": [],
        "poor": ["bad: wanted none, found 2"],
    }


def test_a_step_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "nonsense"])
    assert "no such step: nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["histories", "corruption"])
def test_real_steps_speak_so_that_they_are_understood(name: str) -> None:
    (step,) = (step for step in STEPS if step.name == name)
    assert command.run_step(step, 0.002)["lacking"] == []
