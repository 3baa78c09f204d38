"""Small images, the same for the same number, and the names by which they are known again.

What is sent as a file comes back byte for byte: its name is its object id. What is sent by C-STORE is a data set that
the agent wraps in a file: its name is made of the data set alone. Refuses to do: sending.
"""

from pathlib import Path

from bench.generate import ct_series, uid
from transfer.objects import object_id

ROWS = 8


def make(number: int, count: int) -> list[bytes]:
    """Return `count` files of the series `number`."""
    return list(ct_series(count, seed=number, rows=ROWS, columns=ROWS))


def write(folder: Path, number: int, count: int) -> list[str]:
    """Write the series into `folder`; return the names."""
    folder.mkdir(parents=True)
    names = []
    for index, data in enumerate(make(number, count)):
        (folder / f"{index}.dcm").write_bytes(data)
        names.append(file_name(data))
    return names


def file_name(data: bytes) -> str:
    """Return the name of a file's bytes."""
    return object_id(data)


def data_set(data: bytes) -> bytes:
    """Return what follows the file's meta information (PS3.10 7.1: its group length is its first element)."""
    assert data[128:136] == b"DICM\x02\x00\x00\x00", data[:140]
    return data[144 + int.from_bytes(data[140:144], "little") :]


def data_set_name(data: bytes) -> str:
    """Return the name of a data set's bytes."""
    return f"data set {object_id(data)}"


def instance_uid(number: int, index: int) -> str:
    """Return the SOP Instance UID of an image."""
    return str(uid(number, index))
