"""Turns a tree of files into a disk: a partition table, one ext4, GRUB for BIOS; every byte a function of the tree.

    0            GRUB's boot.img (440 bytes), partition table: one partition, active
    512          GRUB's core image: finds the partition's /boot/grub/grub.cfg
    1 MiB        ext4, to the end

No loop device, no mount. Refuses to do: filling trees (`xen.image.root`).
"""

import os
import stat
import struct
import uuid
from pathlib import Path
from typing import Final

from transfer.errors import CrashedError
from xen.image.programs import call
from xen.image.root import walk

MIB: Final = 1 << 20
START_BYTES: Final = MIB
SECTOR_BYTES: Final = 512
BOOT_CODE_BYTES: Final = 440
ACTIVE: Final = 0x80
LINUX: Final = 0x83
BEYOND_CHS: Final = b"\xfe\xff\xff"  # the partition is said in sectors only
GRUB: Final = Path("/usr/lib/grub/i386-pc")
MODULES: Final = ("biosdisk", "part_msdos", "ext2", "normal", "linux", "search", "search_fs_uuid", "configfile", "test")
EXT4: Final = "^orphan_file,^metadata_csum_seed"  # as GRUB of this suite knows it
# What mke2fs takes from the tree's own inodes is the hour of this making; the rest it has from the tree's time stamps.
FIELDS: Final = ("ctime", "crtime", "atime")


def identity(name: str) -> str:
    """Return a UUID that is always the same for a name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:fascicle:node-image:{name}"))


def make_disk(tree: Path, disk: Path, *, size_bytes: int, epoch_s: int, work: Path) -> None:
    """Write the disk, sparse; `work` is a folder for what is made in between.

    Raises:
        CrashedError: the tree does not fit, or a step failed.
    """
    disk.unlink(missing_ok=True)
    with disk.open("wb") as out:
        out.truncate(size_bytes)
    _write_grub(disk, work, table(size_bytes))
    fake = {"E2FSPROGS_FAKE_TIME": str(epoch_s), "SOURCE_DATE_EPOCH": str(epoch_s)}
    call(
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "node", "-m", "1", "-U", identity("root"), "-O", EXT4,
        "-E", f"offset={START_BYTES},hash_seed={identity('hash')},root_owner=0:0,lazy_itable_init=0,nodiscard",
        "-d", tree, disk, f"{(size_bytes - START_BYTES) // 1024}k", environment=fake,
    )  # fmt: skip
    _set_times(tree, disk, epoch_s, fake)


def table(size_bytes: int) -> bytes:
    """Return the last 72 bytes of the first sector: the disk's number, one active Linux partition to the end."""
    number = uuid.UUID(identity("disk")).fields[0]
    first, count = START_BYTES // SECTOR_BYTES, (size_bytes - START_BYTES) // SECTOR_BYTES
    entry = struct.pack("<B3sB3sII", ACTIVE, BEYOND_CHS, LINUX, BEYOND_CHS, first, count)
    return struct.pack("<IH", number, 0) + entry + bytes(48) + b"\x55\xaa"


def _write_grub(disk: Path, work: Path, end: bytes) -> None:
    core = work / "core.img"
    early = work / "early.cfg"
    early.write_text(f"search.fs_uuid {identity('root')} root\nset prefix=($root)/boot/grub\n")
    call("grub-mkimage", "-O", "i386-pc", "-o", core, "-c", early, "-p", "/boot/grub", *MODULES)
    image, boot = core.read_bytes(), (GRUB / "boot.img").read_bytes()
    if SECTOR_BYTES + len(image) > START_BYTES:
        raise CrashedError(f"GRUB's core image has {len(image)} bytes and does not fit before the partition")
    with disk.open("r+b") as out:
        out.write(boot[:BOOT_CODE_BYTES] + end)
        out.seek(SECTOR_BYTES)
        out.write(image)


def _set_times(tree: Path, disk: Path, epoch_s: int, fake: dict[str, str]) -> None:
    """Set the times that mke2fs took from the inodes of the tree, which nobody can set there."""
    words = []
    for path in walk(tree):
        name = "/" + str(path.relative_to(tree)) if path != tree else "/"
        quoted = name.replace('"', '""')
        words += [f'set_inode_field "{quoted}" {field} @{epoch_s}' for field in FIELDS]
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            raise CrashedError(f"{name} is a socket: something ran in the tree")
    said = call(
        "debugfs", "-w", "-f", "-", f"{disk}?offset={START_BYTES}", environment=fake, stdin="\n".join([*words, ""])
    )
    wrong = [line for line in said.splitlines() if line.strip() and not line.startswith(("debugfs:", "debugfs "))]
    if wrong:
        raise CrashedError(f"debugfs: {wrong[0]}")
