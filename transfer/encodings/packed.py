"""`gradient-pack`: the differences of `gradient-zstd`, each eight of them with as many bits as the largest needs.

The samples of all colours, one colour after the other, are one plane of (colours x rows, columns); each row is cut
into groups of eight, the last one filled up with zeros. A group has a width: the bits of its largest folded difference,
where 15 counts as 16.

    widths      4 bits a group, the first in the low half of its byte; 15 stands for 16
    groups      width bytes each: bit k of byte b is bit b of the group's sample k

Nothing is searched and nothing is modelled, so it is several times as fast as zstd on the same differences, and hardly
longer on noisy images. What it does is compiled (`gradient_pack.c`); where it was not, numpy does the same more slowly,
and is what the compiled part is tested against. Refuses to do: knowing which of the two it was.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from transfer.encodings.codecs import Form
from transfer.encodings.gradient import differences, fold, join_colours, part_colours, sum_down, unfold
from transfer.encodings.native import SLACK_BYTES, Octets, load_native
from transfer.encodings.strip import Strip
from transfer.errors import CorruptError

GROUP: Final = 8
WIDEST: Final = 15  # as a nibble; it stands for 16
_SWAPS: Final = tuple(
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))
)
_KEPT: Final = np.tri(WIDEST + 2, WIDEST + 1, k=-1, dtype=bool)  # by width

Words = NDArray[np.uint64]
Plane = NDArray[np.unsignedinteger[Any]]  # (rows, columns)


class GradientPack:
    """Within a few per cent of `gradient-zstd`, at the speed of memory."""

    def encode(self, strip: Strip) -> bytes:
        """Return the packed strip."""
        colours = part_colours(strip)
        plane = np.require(colours.reshape(-1, strip.shape[1]), requirements=["C", "A"])
        native = load_native()
        if native is None:
            return pack(plane)
        groups = _groups(plane)
        room = np.empty((groups + 1) // 2 + groups * GROUP * plane.itemsize + SLACK_BYTES, np.uint8)
        made: bytes = room[: native.pack(plane, room)].tobytes()
        return made

    def decode(self, stored: Buffer, form: Form) -> Strip:
        """Return the strip; its size is that of `form`, whatever the bytes say."""
        colours = np.empty((form.components, form.rows, form.columns), f"<u{form.sample_bytes}")
        plane = colours.reshape(-1, form.columns)
        octets: Octets = np.frombuffer(memoryview(stored), np.uint8)
        native = load_native()
        if native is None:
            plane[:] = unpack(octets, plane)
        elif not native.unpack(octets, plane):
            raise CorruptError("a packed strip has widths that cannot be, or another length than they say")
        return join_colours(colours)


def _groups(plane: Plane) -> int:
    rows, columns = plane.shape
    return int(rows) * -(-int(columns) // GROUP)


def pack(plane: Plane) -> bytes:
    """Return what the compiled part makes of `plane`."""
    rows, columns = plane.shape
    filled = np.zeros((rows, -(-columns // GROUP) * GROUP), plane.dtype)
    filled[:, :columns] = fold(differences(differences(plane[np.newaxis], axis=2), axis=1))[0]
    by_significance = [(filled >> 8 * byte).astype(np.uint8).view("<u8").reshape(-1) for byte in range(plane.itemsize)]
    words = np.stack([_turn(samples) for samples in by_significance], axis=1)  # (groups, 1 or 2)
    widths = np.zeros(len(words), np.uint8)
    for number, used in enumerate(_used_bytes(words).T):
        widths = np.where(used, 8 * number + used, widths)
    widths[widths == WIDEST] = WIDEST + 1
    nibbles = np.zeros((len(widths) + 1) // 2 * 2, np.uint8)
    nibbles[: len(widths)] = np.minimum(widths, WIDEST)
    kept = words.view(np.uint8)[_are_kept(widths, plane.itemsize)]
    return (nibbles[0::2] | nibbles[1::2] << 4).tobytes() + kept.tobytes()


def unpack(stored: Octets, like: Plane) -> Plane:
    """Return a plane of shape and kind of `like`.

    Raises:
        CorruptError: `stored` is no such plane.
    """
    count = _groups(like)
    packed = stored[: (count + 1) // 2]
    widths = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count].astype(np.int64)
    widths[widths == WIDEST] = WIDEST + 1
    if len(widths) != count or (widths > 8 * like.itemsize).any() or len(packed) + widths.sum() != len(stored):
        raise CorruptError("a packed strip has widths that cannot be, or another length than they say")
    words = np.zeros((count, like.itemsize), "<u8")
    words.view(np.uint8)[_are_kept(widths, like.itemsize)] = stored[len(packed) :]
    filled = np.zeros((like.shape[0], -(-like.shape[1] // GROUP) * GROUP), like.dtype)
    for byte, samples in enumerate(_turn(words).T):
        filled |= np.ascontiguousarray(samples).view(np.uint8).reshape(filled.shape).astype(like.dtype) << 8 * byte
    plane = unfold(np.ascontiguousarray(filled[:, : like.shape[1]]))
    np.cumsum(plane, axis=1, dtype=like.dtype, out=plane)
    sum_down(plane[np.newaxis])
    return plane


def _turn(words: Words) -> Words:
    """Turn 8 bytes of 8 bits: bit i of byte k becomes bit k of byte i; as `gradient_pack.c` does."""
    for shift, mask in _SWAPS:
        swapped = (words ^ (words >> shift)) & mask
        words = words ^ swapped ^ (swapped << shift)
    return words


def _used_bytes(words: Words) -> Octets:
    """Return for each word how many bytes there are up to its last one that is not 0."""
    used: Octets = np.sum([words >= np.uint64(1 << 8 * byte) for byte in range(8)], axis=0, dtype=np.uint8)
    return used


def _are_kept(widths: NDArray[Any], sample_bytes: int) -> NDArray[np.bool_]:
    """Return which bytes of each group's words are stored: (groups, 8 or 16)."""
    return _KEPT[widths, : GROUP * sample_bytes]
