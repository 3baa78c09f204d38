"""The outbox of one flow: what the node has to say, gathered while the last sending was under way.

Receipts become one signed batch, credit one frame, whatever their number. Pure but for the event that wakes the
sender. Refuses to do: sending, signing.
"""

from typing import Final

import trio

from transfer.protocol.frames import encode_control
from transfer.protocol.messages import Control, Refused
from transfer.receipts import Receipt

BATCH_RECEIPTS_MAX: Final = 256
TEXT_MAX: Final = 1000


class Outbox:
    """Gathers replies; `wait` until there are some, then `take` them."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.receipts: list[Receipt] = []
        self._wake = trio.Event()

    def say(self, message: Control) -> None:
        """Queue one control frame."""
        self.queue(encode_control(message))

    def queue(self, frame: bytes) -> None:
        """Queue a frame that is encoded already."""
        self.frames.append(frame)
        self.wake()

    def refuse(self, object_id: bytes, code: str, text: str) -> None:
        """Queue a refusal of one object, or with an empty id of the flow."""
        self.say(Refused(object_id, code, text[:TEXT_MAX]))

    def acknowledge(self, receipt: Receipt) -> None:
        """Queue a receipt for the next batch."""
        self.receipts.append(receipt)
        self.wake()

    def wake(self) -> None:
        """Let the sender look again."""
        self._wake.set()

    async def wait(self) -> None:
        """Wait until something was queued since the last `wait` returned."""
        await self._wake.wait()
        self._wake = trio.Event()

    def take_receipts(self) -> list[Receipt]:
        """Return the receipts of one batch."""
        taken = self.receipts[:BATCH_RECEIPTS_MAX]
        del self.receipts[:BATCH_RECEIPTS_MAX]
        return taken

    def take_frames(self) -> bytes:
        """Return all queued frames as one piece."""
        joined = b"".join(self.frames)
        self.frames.clear()
        return joined
