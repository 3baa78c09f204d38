"""The recipe of the node image, its parts that need no root: sources, evening out, and the disk's bytes."""

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from transfer.errors import CrashedError, SettingsError
from xen.image import contents, programs, root, sources
from xen.image.disk import MIB, START_BYTES, identity, make_disk, table
from xen.image.sources import Source

EPOCH_S = 1_793_491_200
LISTED = """\
mirror://one/debian/|bookworm|main|Debian
mirror://one/debian/|bookworm-updates|main|Debian
mirror://one/debian/|bookworm|contrib|Debian
mirror://one/debian/|bookworm|main|Debian
mirror://two/security/|bookworm-security|main|Debian
mirror://two/other/|stable|main|Somebody
broken line
"""
NEEDED = pytest.mark.skipif(
    not Path("/usr/lib/grub/i386-pc/boot.img").exists() or {"mke2fs", "grub-mkimage"} & set(programs.missing()),
    reason="GRUB's images (Debian: grub-pc-bin) or mke2fs are not installed; .ci/packages xen",
)


def test_sources_are_debians_own_once_each() -> None:
    found = sources.parse(LISTED)
    assert [each.suite for each in found] == ["bookworm", "bookworm-updates", "bookworm-security"]
    assert sources.base(found, "bookworm") == Source("mirror://one/debian/", "bookworm", "main")
    assert sources.of_suite(found, "bookworm") == found
    assert found[0].line() == f"deb [signed-by={sources.KEYRING}] mirror://one/debian/ bookworm main"


def test_a_suite_that_apt_does_not_know_is_named_with_those_that_it_knows() -> None:
    with pytest.raises(SettingsError, match=r"the suite trixie here; it has: bookworm, bookworm-sec"):
        sources.base(sources.parse(LISTED), "trixie")


def test_the_recipe_names_no_host() -> None:
    texts = [path.read_text() for path in Path(contents.__file__).parent.glob("*.py")]
    assert len(texts) > 5
    assert [text for text in texts if "://" in text] == []


def test_passwords_were_changed_on_the_epochs_day() -> None:
    text = "root:*:20000:0:99999:7:::\nfascicle:!:20001::::::\n"
    assert root.shadow_of(text, 5) == "root:*:5:0:99999:7:::\nfascicle:!:5::::::\n"


def test_paths_come_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/z", "b/a", "a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/link").symlink_to("..")
    assert [str(path.relative_to(tmp_path)) for path in root.walk(tmp_path)] == [".", "a", "b", "b/a", "b/link", "b/z"]


def test_what_cannot_begin_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"not installed: debootstrap \(Debian: debootstrap\)"):
        root.check(EPOCH_S, ["debootstrap"], [])
    with pytest.raises(SettingsError, match="SOURCE_DATE_EPOCH is -1"):
        root.check(-1, [], [])
    with pytest.raises(SettingsError, match=r"tools\.rpm is no Debian package"):
        root.check(EPOCH_S, [], [tmp_path / "tools.rpm"])
    root.check(EPOCH_S, [], [])


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(CrashedError, match=r"ls failed \(2\):\n.*no-such-file"):
        programs.call("ls", "/no-such-file")
    with pytest.raises(SettingsError, match="no-such-program is not installed"):
        programs.call("no-such-program")


def test_one_active_partition_to_the_end() -> None:
    """The last 72 bytes of the first sector, as every BIOS reads them."""
    made = table(64 * MIB)
    assert (len(made), made[-2:]) == (72, b"\x55\xaa")
    active, _, kind, _, first, count = struct.unpack("<B3sB3sII", made[6:22])
    assert (active, kind, first * 512, (first + count) * 512) == (0x80, 0x83, START_BYTES, 64 * MIB)
    assert made[22:70] == bytes(48)


def _tree(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hashlib.sha256(name.encode()).digest() * 100)
    (folder / 'odd "name" \\ here').write_text("quoted")
    (folder / "link").symlink_to("a/0")
    for path in root.walk(folder):
        os.utime(path, (EPOCH_S, EPOCH_S), follow_symlinks=False)
    return folder


@NEEDED
def test_the_same_tree_gives_the_same_disk_whenever_and_in_whatever_order_it_was_made(tmp_path: Path) -> None:
    names = [f"{folder}/{number}" for folder in "abc" for number in range(30)]
    digests = []
    for index, each in enumerate((names, names[::-1])):
        work = tmp_path / f"work-{index}"
        work.mkdir()
        tree, disk = _tree(tmp_path / f"tree-{index}", each), tmp_path / f"{index}.raw"
        make_disk(tree, disk, size_bytes=24 * MIB, epoch_s=EPOCH_S, work=work)
        assert disk.stat().st_size == 24 * MIB
        digests.append(hashlib.sha256(disk.read_bytes()).hexdigest())
        shutil.rmtree(tree)
    assert digests[0] == digests[1]


@NEEDED
def test_the_disk_is_sound_and_has_what_the_tree_had(tmp_path: Path) -> None:
    tree, disk = _tree(tmp_path / "tree", ["etc/one", "two"]), tmp_path / "disk.raw"
    make_disk(tree, disk, size_bytes=24 * MIB, epoch_s=EPOCH_S, work=tmp_path)
    head = disk.read_bytes()[:START_BYTES]
    assert head[510:512] == b"\x55\xaa"
    assert head[512:1024] != bytes(512)
    inside = f"{disk}?offset={START_BYTES}"
    assert "Pass 5" in programs.call("e2fsck", "-f", "-n", inside)  # which fails where it finds anything
    assert _cat(inside, "/etc/one") == (tree / "etc/one").read_bytes()
    assert identity("root") in programs.call("dumpe2fs", "-h", inside)


def _cat(disk: str, name: str) -> bytes:
    done = subprocess.run([programs.program("debugfs"), "-R", f"cat {name}", disk], capture_output=True, check=True)
    return done.stdout


@NEEDED
def test_a_tree_that_does_not_fit_is_an_error_with_mke2fs_words(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", ["one"])
    (tree / "large").write_bytes(os.urandom(8 * MIB))
    with pytest.raises(CrashedError, match="mke2fs failed"):
        make_disk(tree, tmp_path / "disk.raw", size_bytes=6 * MIB, epoch_s=EPOCH_S, work=tmp_path)


def test_the_image_has_what_a_node_needs() -> None:
    needed = {"cloud-init", "cloud-guest-utils", "qemu-guest-agent", "iproute2", contents.KERNEL}
    assert needed <= set(contents.PACKAGES)
    assert f"python{contents.PYTHON_TAG}/" in f"{contents.LIBRARIES}/"
    unit, _ = contents.FILES["etc/systemd/system/fascicle-node.service"]
    assert "fascicle node serve --config /var/lib/fascicle/node.toml" in unit
    cloud, _ = contents.FILES["etc/cloud/cloud.cfg.d/90-fascicle.cfg"]
    assert "datasource_list: [NoCloud, None]" in cloud  # no server of metadata is asked
    assert "[]" not in cloud  # which cloud-init's schema refuses
    launcher, mode = contents.FILES["usr/local/bin/fascicle"]
    assert mode == 0o755
    compile(launcher, "fascicle", "exec")
