"""An ext4 of its own on a loop device, and power cuts of it.

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
UNMOUNT_S: Final = 10.0
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
def open_disk(folder: Path, size_mib: int = 256) -> Iterator[Disk]:
    """Make an ext4 in a file in `folder`, mounted at `folder`/mount; all of it is gone afterwards."""
    image, mount = folder / "disk.img", folder / "mount"
    mount.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    device = _run("losetup", "--find", "--show", str(image))
    try:
        disk = Disk(device, mount)
        try:
            yield disk
        finally:
            disk.close()
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": PATH}, timeout=60)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()
