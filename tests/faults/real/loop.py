"""An ext4 of its own on a loop device, and power cuts of it.

The mount is seen by this process and its children alone: in another mount namespace (each `ip netns exec` makes one, as
a copy) it would outlive its unmounting, and the next mount would find it dead. Mount and device go with the process.

A cut is EXT4_IOC_SHUTDOWN without a flush of the log: from then on nothing more reaches the device, every call on the
file system fails, and what was in the page cache is gone with the unmounting. The next mount replays the log as after
a loss of power. What the device got, it keeps: drives that lie about flushing are not emulated. Refuses to do: ending
the processes that use it.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

EXT4_IOC_SHUTDOWN: Final = 0x8004587D
NO_LOG_FLUSH: Final = 2
CLONE_NEWNS: Final = 0x00020000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
UNMOUNT_S: Final = 10.0
INODES: Final = 20_000
PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """A mounted file system that can lose its power; made by `open_disk`."""

    def __init__(self, device: str, folder: Path) -> None:
        self._device = device
        self.folder = folder
        self._mount()

    def cut(self) -> None:
        """Cut the power: nothing that was not flushed is there at the next mount."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """Mount it again, as after the power has come back; its users must have ended."""
        self._unmount()
        self._mount()

    def sync(self) -> None:
        """Flush everything: what is made before a campaign begins is no part of it."""
        _run("sync", "-f", str(self.folder))

    def close(self) -> None:
        """Let go of it."""
        self._unmount()

    def _mount(self) -> None:
        target = str(self.folder).encode()
        _judge(_libc.mount(self._device.encode(), target, b"ext4", 0, b""), f"mount {self._device}")

    def _unmount(self) -> None:
        """Unmount; a process that was killed a moment ago may still be on its way out of a call."""
        deadline_s = time.monotonic() + UNMOUNT_S
        while _libc.umount2(str(self.folder).encode(), 0) != 0:
            if time.monotonic() > deadline_s:
                _judge(-1, f"unmount {self.folder}")
            time.sleep(0.001)


def _judge(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def reason_against() -> str:
    """Return why there can be no such disk here; "" where there can."""
    if os.geteuid() != 0:
        return "power cuts need root, to mount"
    missing = [name for name in ("mkfs.ext4", "losetup") if shutil.which(name, path=PATH) is None]
    if missing or not Path("/dev/loop-control").exists():
        return f"power cuts need loop devices and {' '.join(missing) or 'the loop module'}"
    return ""


@contextlib.contextmanager
def open_disk(folder: Path, size_mib: int = 256, *, mount: Path | None = None, inodes: int = INODES) -> Iterator[Disk]:
    """Make an ext4 in a file in `folder`, mounted at `mount` (`folder`/mount); all of it is gone afterwards."""
    image, mount = folder / "disk.img", mount or folder / "mount"
    for each in (folder, mount):
        each.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-N", str(inodes), str(image))
    leave_mount_namespace()
    device = _run("losetup", "--find", "--show", str(image))
    held = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _run("losetup", "--detach", device)  # when the last who holds it lets go
        disk = Disk(device, mount)
        try:
            yield disk
        finally:
            disk.close()
    finally:
        os.close(held)


def leave_mount_namespace() -> None:
    """Give this process mounts of its own, which go with it."""
    _judge(_libc.unshare(CLONE_NEWNS), "a mount namespace of its own")
    _judge(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "private mounts")


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": PATH}, timeout=60)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()
