"""The one line of a pool file that commands write: that number, and no other byte; never over somebody's change."""

import os
from pathlib import Path

import pytest

from transfer.errors import ConflictError, SettingsError
from xen import countline

TEXT = """# thirty [for now]\r
cluster = "radiology"   # caf\u00e9
[growth]
count_max = 40
[nodes]  # [of any kind]
# count = 7 [nodes]
prefix = "node-"
count = 1_0  # as agreed
[xenapi]
count = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pool.toml"
    path.write_bytes(TEXT.encode())
    path.chmod(0o644)
    return path


def test_the_number_is_written_and_no_other_byte(path: Path) -> None:
    countline.write(countline.look(path, 31))
    assert path.read_bytes().decode() == TEXT.replace("count = 1_0", "count = 31")
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["pool.toml"]


def test_a_number_that_is_there_is_not_written_again(path: Path) -> None:
    countline.write(countline.look(path, 12))
    before = path.stat()
    countline.write(countline.look(path, 12))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_somebody_changed_meanwhile_is_not_overwritten(path: Path) -> None:
    change = countline.look(path, 31)
    theirs = TEXT.replace("1_0", "12")
    path.write_bytes(theirs.encode())
    with pytest.raises(ConflictError, match="somebody has changed it in this moment, so nothing was written"):
        countline.write(change)
    assert path.read_bytes() == theirs.encode()


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "pool.toml"
    link.parent.mkdir()
    link.symlink_to(path)
    countline.write(countline.look(link, 31))
    assert link.is_symlink()
    assert countline.count_in(path.read_text(), path) == 31


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes.count = 3", "has no line `count = N`"),
        ("nodes = {count = 3}", "has no line `count = N`"),
        ("[nodes]\n'count' = 3", "has no line `count = N`"),
        ('[nodes]\ntemplate = """\ncount = 3"""\ncount = 5', "has no line `count = N`"),
        ("[nodes]\ncount = ", "has no line `count = N`"),
        ("[nodes]\ncount = 3 4", "not valid TOML"),
        ("\x00", "has no line `count = N`"),
    ],
)
def test_a_file_without_a_plain_line_is_left_alone(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"pool\.toml") as caught:
        countline.look(path, 7)
    assert said in caught.value.message
    assert path.read_text() == text


def test_a_file_that_is_not_there_or_cannot_be_read(path: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        countline.look(tmp_path / "nowhere.toml", 7)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        countline.look(path, 7)
    path.write_bytes(TEXT.encode())
    change = countline.look(path, 7)
    path.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        countline.write(change)
