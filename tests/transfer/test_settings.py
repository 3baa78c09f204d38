"""Settings: what is refused, and by what name."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from transfer.errors import SettingsError
from transfer.settings import load, parse


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str
    settle_s: float = 2.0


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:0"
    reserve_bytes: Annotated[int, Meta(ge=0)] = 0
    plain: bool = False
    watch: list[Watch] = []
    first: Watch | None = None


def write(folder: Path, text: str) -> Path:
    path = folder / "example.toml"
    path.write_text(text)
    return path


def test_a_file_becomes_a_struct(tmp_path: Path) -> None:
    path = write(tmp_path, 'listen = "a:1"\n[first]\nfolder = "y"\n[[watch]]\nfolder = "x"\nsettle_s = 1.5\n')
    expected = Example(listen="a:1", watch=[Watch("x", 1.5)], first=Watch("y"))
    assert load(Example, path, {}) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reserve_byte = 1", "unknown key `reserve_byte`; did you mean `reserve_bytes`?"),
        ("[first]\nfolder = 'x'\nsetle_s = 1", "unknown key `first.setle_s`; did you mean `settle_s`?"),
        ("[[watch]]\nfolder = 'x'\n[[watch]]\nfoldr = 'x'", "unknown key `watch[1].foldr`; did you mean `folder`?"),
        ("zzz = 1", "unknown key `zzz`; known keys: first, listen, plain, reserve_bytes, watch"),
        ("reserve_bytes = -1", "$.reserve_bytes"),
        ("reserve_bytes = '1'", "$.reserve_bytes"),
        ("plain = 1", "$.plain"),
        ("[[watch]]", "missing required field `folder`"),
        ("listen = ", "not valid TOML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        load(Example, path, {})
    assert message in raised.value.message
    assert str(path) in raised.value.message
    assert raised.value.exit_code == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load(Example, tmp_path / "absent.toml", {})
    with pytest.raises(SettingsError, match="Is a directory"):
        load(Example, tmp_path, {})
    (tmp_path / "latin.toml").write_bytes(b'listen = "\xe9"')
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(Example, tmp_path / "latin.toml", {})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "plain = false\n[first]\nfolder = 'x'\n")
    environment = {
        "FASCICLE_FIRST__FOLDER": "/scans",
        "FASCICLE_FIRST__SETTLE_S": "7.5",
        "FASCICLE_TEST_DATA": "one underscore is not a setting",
        "HOME": "/root",
    }
    assert load(Example, path, environment) == Example(first=Watch("/scans", 7.5))


def test_a_key_of_the_top_level_is_overridden_by_an_empty_section(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    assert load(Example, path, {"FASCICLE__PLAIN": "true", "FASCICLE__LISTEN": "h:2"}) == Example("h:2", plain=True)


def test_a_mistake_in_the_environment_is_an_error_of_ours(tmp_path: Path) -> None:
    path = write(tmp_path, "listen = 'a:1'")
    with pytest.raises(SettingsError, match=r"unknown key `first\.foldr`; did you mean `folder`"):
        load(Example, path, {"FASCICLE_FIRST__FOLDR": "x"})
    with pytest.raises(SettingsError, match="FASCICLE_LISTEN__HOST: `listen` is not a section"):
        load(Example, path, {"FASCICLE_LISTEN__HOST": "x"})


def test_an_already_parsed_mapping_is_named_by_its_source() -> None:
    assert parse(Example, {"plain": True}, source="here") == Example(plain=True)
    with pytest.raises(SettingsError, match=r"^here: "):
        parse(Example, {"plan": True}, source="here")
