"""Programs that the recipe runs: found or named as missing, and what they said when they fail.

Refuses to do: knowing what they are for.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from transfer.errors import CrashedError, SettingsError

PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
LINES_SHOWN: Final = 15
PACKAGES: Final = {
    "apt-get": "apt",
    "chroot": "coreutils",
    "debootstrap": "debootstrap",
    "debugfs": "e2fsprogs",
    "grub-mkimage": "grub-common and grub-pc-bin",
    "mke2fs": "e2fsprogs",
}


def program(name: str) -> str:
    """Return where a program is.

    Raises:
        SettingsError: it is not installed; names the package.
    """
    found = shutil.which(name, path=PATH)
    if found is None:
        raise SettingsError(f"{name} is not installed (Debian: {PACKAGES.get(name, name)})")
    return found


def missing() -> list[str]:
    """Return the programs of the recipe that are not installed."""
    return [name for name in PACKAGES if shutil.which(name, path=PATH) is None]


def call(name: str, *words: object, environment: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """Run a program to its end and return what it printed. `environment` comes on top of ours.

    Raises:
        CrashedError: it failed; with its last lines.
    """
    done = subprocess.run(  # noqa: S603  # each command line is made here
        [program(name), *map(str, words)],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "PATH": PATH, **(environment or {})},
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-LINES_SHOWN:])
        raise CrashedError(f"{name} failed ({done.returncode}):\n{last}")
    return done.stdout
