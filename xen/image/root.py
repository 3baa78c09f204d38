"""Makes the tree of files that becomes the node's disk: Debian, this project, files of ours; then evens it out.

What a making leaves of its own hour and machine (logs, caches, times, identities) is removed or set to the epoch, so
that the same packages give the same tree. Refuses to do: disks (`xen.image.disk`); running as anybody but root.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from transfer.errors import CrashedError, SettingsError
from xen.image import contents, programs, sources
from xen.image.programs import call

BACKUPS: Final = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
DAY_S: Final = 86_400
# A mount namespace of its own: what is mounted is gone with the process, whatever happens to it.
IN_TREE: Final = 'mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/run" && exec chroot "$@"'


class Tree:
    """The tree of one node image, below `path`, with the time stamps of `epoch_s` (seconds of the epoch)."""

    def __init__(self, path: Path, epoch_s: int) -> None:
        self.path, self._epoch_s = path, epoch_s
        self._environment = {
            "DEBIAN_FRONTEND": "noninteractive",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": str(epoch_s),
            "TMPDIR": "/tmp",  # noqa: S108  # the tree's own
        }

    def make(self, suite: str, wheels: Path, uuid: str, extra: Sequence[Path] = ()) -> None:
        """Fill the tree, which must be empty; `wheels` is a folder of wheels for the suite's Python.

        `extra`: Debian packages as files, such as a hypervisor's guest tools.

        Raises:
            SettingsError: this machine lacks a program, root, or package lists of the suite.
            CrashedError: a step failed.
        """
        if os.geteuid() != 0:
            raise SettingsError("the node image is made by root: debootstrap needs chroot and device files")
        known = sources.of_suite(sources.configured(), suite)
        base = sources.base(known, suite)
        call(
            "debootstrap", "--variant=minbase", f"--keyring={sources.KEYRING}", "--include=ca-certificates",
            suite, self.path, base.uri, environment=self._environment,
        )  # fmt: skip
        self._write("etc/apt/sources.list", "".join(f"{each.line()}\n" for each in known))
        self._write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)  # nothing starts while it is made
        self._inside("apt-get", "-qq", "update")
        self._inside("apt-get", "-qq", "-y", "dist-upgrade")
        self._inside("apt-get", "-qq", "-y", "--no-install-recommends", "install", *contents.PACKAGES)
        for package in extra:
            shutil.copy(package, self.path / "root" / package.name)
            self._inside("apt-get", "-qq", "-y", "--no-install-recommends", "install", f"/root/{package.name}")
            (self.path / "root" / package.name).unlink()
        (self.path / "usr/sbin/policy-rc.d").unlink()
        self._install(wheels)
        self._configure(uuid)
        self._even_out()

    def manifest(self) -> str:
        """Return every Debian package and its version, a line each, sorted."""
        rows = call("chroot", self.path, "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\n")
        return "".join(sorted(rows.splitlines(keepends=True)))

    def _install(self, wheels: Path) -> None:
        """Unpack the wheels where the suite's Python looks for local packages, and compile them once."""
        target = self.path / contents.LIBRARIES
        target.mkdir(parents=True, exist_ok=True)
        for wheel in sorted(wheels.glob("*.whl")):
            shutil.unpack_archive(wheel, target, "zip")
        for folder in target.glob("*.data"):
            shutil.rmtree(folder)
        self._inside("chmod", "-R", "u=rwX,go=rX", f"/{contents.LIBRARIES}")
        self._inside(
            "python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", f"/{contents.LIBRARIES}"
        )

    def _configure(self, uuid: str) -> None:
        for name, (text, mode) in contents.FILES.items():
            braced = "{uuid}" in text
            self._write(name, text.format(uuid=uuid) if braced else text, mode)
        self._inside(
            "useradd", "--system", "--home-dir", "/var/lib/fascicle", "--shell", "/usr/sbin/nologin", "fascicle"
        )
        self._inside("systemctl", "enable", "systemd-networkd", "systemd-resolved", "systemd-timesyncd")
        self._inside("systemctl", "mask", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer")
        self._inside("update-initramfs", "-u", "-k", "all")
        for name in ("vmlinuz", "initrd.img"):
            self._link_newest(name)

    def _link_newest(self, name: str) -> None:
        found = sorted(each.name for each in (self.path / "boot").glob(f"{name}-*"))
        if not found:
            raise CrashedError(f"no {name} in the tree's /boot: {contents.KERNEL} was not installed whole")
        link = self.path / "boot" / name
        link.unlink(missing_ok=True)
        link.symlink_to(found[-1])

    def _even_out(self) -> None:
        for name in contents.REMOVED:
            _remove(self.path / name)
        for name in contents.EMPTIED:
            for each in (self.path / name).glob("*"):
                _remove(each)
        for name in BACKUPS:
            _remove(self.path / f"etc/{name}-")
        for each in (self.path / "var/lib/dpkg").glob("*-old"):
            _remove(each)
        (self.path / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
        self._write("etc/machine-id", "", 0o444)
        self._write("etc/shadow", shadow_of((self.path / "etc/shadow").read_text(), self._epoch_s // DAY_S), 0o640)
        for path in walk(self.path):
            stat = os.lstat(path)
            if stat.st_mtime > self._epoch_s:
                os.utime(path, (self._epoch_s, self._epoch_s), follow_symlinks=False)

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def _inside(self, *words: str) -> None:
        call("unshare", "--mount", "sh", "-c", IN_TREE, "sh", self.path, *words, environment=self._environment)


def shadow_of(text: str, day: int) -> str:
    """Return a shadow file in which every password was last changed on this day (of the epoch)."""
    rows = [line.split(":") for line in text.splitlines()]
    return "".join(":".join([*row[:2], str(day), *row[3:]]) + "\n" for row in rows)


def walk(top: Path) -> Iterator[Path]:
    """Return every path below `top` and itself, in the order of names; links are not followed."""
    yield top
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted([*folders, *files]):
            yield Path(folder) / name


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check(epoch_s: int, needed: Sequence[str], extra: Iterable[Path]) -> None:
    """Check what can be checked before anything is done.

    Raises:
        SettingsError: programs or packages are missing, or the epoch is none.
    """
    if needed:
        raise SettingsError(
            f"not installed: {', '.join(f'{name} (Debian: {programs.PACKAGES[name]})' for name in needed)}"
        )
    for package in extra:
        if package.suffix != ".deb" or not package.is_file():
            raise SettingsError(f"{package} is no Debian package (a file NAME.deb)")
    if epoch_s < 0:
        raise SettingsError(f"SOURCE_DATE_EPOCH is {epoch_s}, not seconds since 1970")
