"""Folders of objects that a node cannot list, passed over: what is in them is not known to be there, nor to be gone.

A node's page ends before such a folder, and the next question is refused (`nodes.pages`); asked behind it, the node
goes on. No page spans what is passed over, so nothing that reads pages says anything of it. Refuses to do: asking.
"""

from typing import Final

from transfer.errors import StorageError

FOLDERS_MAX: Final = 512  # two of the first level with all that is in them; a disk with more is not worth asking
ID_BYTES: Final = 32
FOLDER_BYTES: Final = 2  # of an id, that name its folder


class Unlisted:
    """The folders of one node that were passed over in one look, as ab/cd, in their order."""

    def __init__(self) -> None:
        self.folders: list[str] = []

    def pass_over(self, after: bytes, reason: StorageError) -> bytes:
        """Note the folder that begins above `after`, or that `after` is in; return the last id that it could hold.

        Raises:
            StorageError: `reason`, when there is no such folder, or there were too many.
        """
        next_id = int.from_bytes(after, "big") + 1 if after else 0
        if next_id >> (8 * ID_BYTES) or len(self.folders) == FOLDERS_MAX:
            raise reason
        first, second = next_id.to_bytes(ID_BYTES, "big")[:FOLDER_BYTES]
        self.folders.append(f"{first:02x}/{second:02x}")
        return bytes([first, second]).ljust(ID_BYTES, b"\xff")
