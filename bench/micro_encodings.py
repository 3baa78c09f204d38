"""Every encoding on real images: MB of original a second on one core each way, and the ratio.

The proof at the sender (`encode_checked`) costs one decoding more. The images are those of the folder that
FASCICLE_TEST_DATA names (ct_head, sts); without it, a generated CT series.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from bench.generate import ct_series
from bench.measure import Figure, best_s
from transfer.encodings import ENCODINGS, IMAGE_ENCODINGS, get_encoding
from transfer.errors import NotSuitableError

IMAGES = 8
SETS = {
    "ct_head": "ct_head/I*", "sts CT": "sts/*/CT/image/*.dcm", "sts MR": "sts/*/MR_T1/image/*.dcm",
    "sts PET": "sts/*/PET/image/*.dcm",
}  # fmt: skip


def figures() -> Iterator[Figure]:
    """Measure."""
    for name, images in image_sets().items():
        for encoding in (*ENCODINGS, *IMAGE_ENCODINGS):
            yield from _encoding(name, encoding, images)


def image_sets() -> dict[str, list[bytes]]:
    """Return some images of each set, evenly out of all of it."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FASCICLE_TEST_DATA", beside))
    found = {name: sorted(folder.glob(pattern)) for name, pattern in SETS.items()}
    sets = {
        name: [path.read_bytes() for path in paths[len(paths) // 16 :: max(1, len(paths) // IMAGES)][:IMAGES]]
        for name, paths in found.items()
        if paths
    }
    return sets or {"generated CT": list(ct_series(IMAGES, seed=1))}


def _encoding(name: str, encoding: str, images: list[bytes]) -> Iterator[Figure]:
    encode = get_encoding(encoding).encode
    try:
        stored = [bytes(encode(image)) for image in images]
    except NotSuitableError:
        return
    original = sum(map(len, images))
    ratio = original / sum(map(len, stored))
    pairs = list(zip(images, stored, strict=True))

    def decode() -> None:
        for image, form in pairs:
            decoder = get_encoding(encoding).decoder(len(image))
            for _ in decoder.feed(form):
                pass
            decoder.finish()

    encode_s = best_s(lambda: [encode(image) for image in images])
    yield Figure(f"{name}: {encoding} encode", "MB", original / 1e6 / encode_s, ratio)
    yield Figure(f"{name}: {encoding} decode", "MB", original / 1e6 / best_s(decode), ratio)
