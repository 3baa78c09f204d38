"""The array that codecs work on. Imports numpy, so only codecs import it."""

from typing import Any

from numpy import unsignedinteger
from numpy.typing import NDArray

Strip = NDArray[unsignedinteger[Any]]  # (rows, columns, components), uint8 or little-endian uint16
