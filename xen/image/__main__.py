"""`python -m xen.image --out DIR`: makes the node image.

    DIR/node.raw        the disk, sparse, to be imported as a template's (docs/xen.md)
    DIR/manifest.txt    every Debian package and every wheel in it
    DIR/SHA256SUMS      of both

The same packages and the same SOURCE_DATE_EPOCH give the same bytes. `--again` makes it a second time and compares.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from transfer.errors import CrashedError, FascicleError
from xen.image import contents, programs, root, wheels
from xen.image.disk import MIB, identity, make_disk

EPOCH_S: Final = 1_793_491_200  # 2026-11-01; SOURCE_DATE_EPOCH says another
SIZE_MIB: Final = 2048


def main() -> int:
    """Make the image; prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m xen.image", description="Make the node image.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--suite", default=contents.SUITE)
    parser.add_argument("--size-mib", type=int, default=SIZE_MIB)
    parser.add_argument(
        "--deb", type=Path, action="append", default=[], help="a Debian package more: XenServer's guest tools"
    )
    parser.add_argument("--again", action="store_true", help="make it twice and compare")
    arguments = parser.parse_args()
    epoch_s = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH_S))
    started_s = time.monotonic()
    try:
        root.check(epoch_s, programs.missing(), arguments.deb)
        arguments.out.mkdir(parents=True, exist_ok=True)
        recipe = Recipe(arguments.suite, arguments.size_mib * MIB, epoch_s, tuple(arguments.deb))
        digest = make(arguments.out, recipe)
        if arguments.again:
            with tempfile.TemporaryDirectory(dir=arguments.out, prefix="again-") as folder:
                _compare(digest, make(Path(folder), recipe))
    except FascicleError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    found = {"image": str(arguments.out / "node.raw"), "sha256": digest, "made_again": arguments.again}
    sys.stdout.write(json.dumps(found | {"seconds": round(time.monotonic() - started_s, 1)}) + "\n")
    return 0


class Recipe(msgspec.Struct, frozen=True):
    """What is made: Debian's suite, the disk's size, the time stamps (seconds of the epoch), packages more."""

    suite: str
    size_bytes: int
    epoch_s: int
    extra: tuple[Path, ...] = ()


def make(out: Path, recipe: Recipe) -> str:
    """Make the image in `out` and return its SHA-256.

    Raises:
        FascicleError: a step failed; nothing of a former image was touched then.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix="making-") as folder:
        work = Path(folder)
        gathered, tree = work / "wheels", work / "tree"
        gathered.mkdir()
        tree.mkdir(mode=0o755)
        wheels.gather(gathered, work)
        made = root.Tree(tree, recipe.epoch_s)
        made.make(recipe.suite, gathered, identity("root"), recipe.extra)
        disk = work / "node.raw"
        make_disk(tree, disk, size_bytes=recipe.size_bytes, epoch_s=recipe.epoch_s, work=work)
        manifest = work / "manifest.txt"
        manifest.write_text(made.manifest() + "".join(f"{each.name}\n" for each in sorted(gathered.iterdir())))
        sums = {each.name: _digest(each) for each in (disk, manifest)}
        for each in (disk, manifest):
            each.replace(out / each.name)
    (out / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    return sums["node.raw"]


def _digest(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _compare(first: str, second: str) -> None:
    if first != second:
        raise CrashedError(f"the second making gave another image: {second}, not {first}")


if __name__ == "__main__":
    sys.exit(main())
