"""Gathers this project and its dependencies as wheels for the image's Python, in the versions of constraints.txt.

Refuses to do: building what has no wheel (an image must not need a compiler).
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from transfer.errors import CrashedError, SettingsError
from xen.image import contents
from xen.image.programs import LINES_SHOWN

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")


def gather(wheels: Path, work: Path) -> None:
    """Fill the folder `wheels`, out of the source tree that this module lies in.

    Raises:
        SettingsError: this is not a source tree.
        CrashedError: pip failed.
    """
    if not (ROOT / "pyproject.toml").is_file():
        raise SettingsError(
            "the node image is made from a source tree (git clone; make setup), not from an installed package"
        )
    source = work / "source"
    source.mkdir()
    for name in COPIED:
        shutil.copy2(ROOT / name, source / name)
    for folder in sorted(each.parent for each in ROOT.glob("*/py.typed")):
        shutil.copytree(folder, source / folder.name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (source / "fascicle.egg-info").mkdir(exist_ok=True)
    _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source))
    ours = next(wheels.glob("fascicle-*.whl"))
    tags = [f"--platform={each}" for each in contents.PLATFORMS]
    _pip(
        "download", "--only-binary=:all:", "--implementation", "cp", "--python-version", contents.PYTHON_TAG,
        *tags, "-c", str(ROOT / "constraints.txt"), "-d", str(wheels), str(ours),
    )  # fmt: skip


def _pip(task: str, *words: str) -> None:
    command = [sys.executable, "-m", "pip", task, "-q", "--disable-pip-version-check", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603  # our own command
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-LINES_SHOWN:])
        raise CrashedError(f"pip {task} failed ({done.returncode}):\n{last}")
