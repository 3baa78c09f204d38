"""`gradient-pack`: the differences of `gradient-zstd`, each eight of them with as many bits as the largest needs.

The samples of all colours, one colour after the other, are one plane of (colours x rows, columns); each row is cut
into groups of eight, the last one filled up with zeros. A group has a width: the bits of its largest folded difference,
where 15 counts as 16.

    widths      4 bits a group, the first in the low half of its byte; 15 stands for 16
    groups      width bytes each: bit k of byte b is bit b of the group's sample k

Nothing is searched and nothing is modelled, so it is ten times as fast as zstd on the same differences, and on noisy
images no longer. What it does is compiled (`gradient_pack.c`); where it was not, numpy does the same more slowly, and
is what the compiled part is tested against. Refuses to do: knowing which of the two it was.
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
    folded = fold(differences(differences(plane[np.newaxis], axis=2), axis=1))[0]
    filled = np.zeros((rows, -(-columns // GROUP) * GROUP), plane.dtype)
    filled[:, :columns] = folded
    groups = _turn(filled.view(np.uint8).reshape(-1, GROUP, plane.itemsize).transpose(0, 2, 1))
    octets = groups.reshape(len(groups), -1)  # (groups, 8 or 16), by significance
    used = octets.astype(bool)
    widths = np.where(used.any(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1), 0)
    widths[widths == WIDEST] = WIDEST + 1
    nibbles = np.zeros((len(widths) + 1) // 2 * 2, np.uint8)
    nibbles[: len(widths)] = np.minimum(widths, WIDEST)
    kept = octets[np.arange(used.shape[1]) < widths[:, np.newaxis]]
    return (nibbles[0::2] | nibbles[1::2] << 4).tobytes() + kept.tobytes()


def unpack(stored: Octets, like: Plane) -> Plane:
    """Return a plane of shape and kind of `like`.

    Raises:
        CorruptError: `stored` is no such plane.
    """
    count, most = _groups(like), GROUP * like.itemsize
    packed = stored[: (count + 1) // 2]
    widths = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count].astype(np.int64)
    widths[widths == WIDEST] = WIDEST + 1
    if len(widths) != count or (widths > most).any() or len(packed) + widths.sum() != len(stored):
        raise CorruptError("a packed strip has widths that cannot be, or another length than they say")
    octets = np.zeros((count, most), np.uint8)
    octets[np.arange(most) < widths[:, np.newaxis]] = stored[len(packed) :]
    groups = _turn(octets.reshape(count, like.itemsize, GROUP)).transpose(0, 2, 1)
    filled = np.ascontiguousarray(groups).view(like.dtype).reshape(like.shape[0], -1)
    plane = unfold(np.ascontiguousarray(filled[:, : like.shape[1]]))
    np.cumsum(plane, axis=1, dtype=like.dtype, out=plane)
    sum_down(plane[np.newaxis])
    return plane


def _turn(octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn each 8 bytes of 8 bits on the last axis: bit i of byte k becomes bit k of byte i."""
    bits = np.unpackbits(octets[..., np.newaxis], axis=-1, bitorder="little")
    return np.packbits(bits.swapaxes(-1, -2), axis=-1, bitorder="little")[..., 0]
