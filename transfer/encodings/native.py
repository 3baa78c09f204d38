"""The compiled part: `gradient_pack.c`, without the interpreter's lock. Where it was not compiled there is none.

Built by setuptools as an optional extension; it holds no Python, so it is opened as the plain library that it is.
Refuses to do: checking shapes and room; that is its caller's (`transfer.encodings.packed`).
"""

import ctypes
import importlib.util
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

MODULE: Final = "transfer.encodings._gradient_pack"
SLACK_BYTES: Final = 16  # what `pack` writes behind what it made, at most

Octets = NDArray[np.uint8]


class Native:
    """The functions of the library, on contiguous arrays."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self._pack, self._unpack = library.fascicle_pack, library.fascicle_unpack
        size, address = ctypes.c_size_t, ctypes.c_void_p
        self._pack.argtypes, self._pack.restype = (address, size, size, ctypes.c_uint, address), size
        self._unpack.argtypes = (address, size, size, size, ctypes.c_uint, address)

    def pack(self, samples: NDArray[np.unsignedinteger], room: Octets) -> int:
        """Pack (rows, columns) samples into `room`, which is large enough; return how many bytes that made."""
        rows, columns = samples.shape
        made: int = self._pack(samples.ctypes.data, rows, columns, samples.itemsize, room.ctypes.data)
        return made

    def unpack(self, stored: Octets, samples: NDArray[np.unsignedinteger]) -> bool:
        """Fill (rows, columns) samples; tell whether `stored` was such a strip."""
        rows, columns = samples.shape
        unpack = self._unpack
        return bool(unpack(stored.ctypes.data, stored.size, rows, columns, samples.itemsize, samples.ctypes.data) == 0)


@cache
def load_native() -> Native | None:
    """Return the compiled part, or None where it was not compiled."""
    spec = importlib.util.find_spec(MODULE)
    return Native(spec.origin) if spec is not None and spec.origin else None
