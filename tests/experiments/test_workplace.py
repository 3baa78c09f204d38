"""What runs leave is put aside, and removed together when it is much."""

from pathlib import Path

from experiments.workplace import Workplace, open_workplace


def make(folder: Path, size_bytes: int) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(bytes(size_bytes))
    return folder


def left(workplace: Workplace) -> int:
    return len(list(workplace.folder.rglob("file")))


def test_a_name_is_free_again_and_what_lay_there_stays_until_it_is_much(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path, limit_bytes=1000)
    for count in (1, 2, 0, 1):
        workplace.put_aside(make(tmp_path / "job", 400))
        assert not (tmp_path / "job").exists()
        assert left(workplace) == count


def test_nothing_outlives_the_campaign() -> None:
    with open_workplace() as workplace:
        workplace.put_aside(make(workplace.folder / "job", 1))
        assert left(workplace) == 1
    assert not workplace.folder.exists()
