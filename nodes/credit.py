"""Credit: how many payload bytes each flow may have in the node's memory, out of one budget for all flows.

Pure. A flow's window is its fair share of the budget, at most 16 MiB, and at least 1.5: half a frame beside the first
MiB of the object under way, which stays in memory until its last byte has come (with less, a client could wait for
ever in the middle of an object). When more flows come, the windows of the others shrink as they are used up, because
no new credit is given until they are below their share.
Refuses to do: sending, counting flows for any other purpose.
"""

from typing import Final

from nodes.incoming import MEMORY_BYTES

WINDOW_BYTES_MAX: Final = 16 << 20
WINDOW_BYTES_MIN: Final = MEMORY_BYTES + (512 << 10)
BUDGET_BYTES: Final = 32 << 20
FLOWS_MAX: Final = 48  # each has at least the least window, so that all together have 72 MiB
KEPT_FLOWS: Final = 16  # more, for nodes alone: senders keep theirs until the replicas are made
NODE_FLOWS_MAX: Final = 8  # of one node: it has one link here, and for a while what is left of those that broke


def window_bytes(flows: int) -> int:
    """Return the window of each of `flows` flows (at least 1)."""
    return max(WINDOW_BYTES_MIN, min(WINDOW_BYTES_MAX, BUDGET_BYTES // max(1, flows)))


def grant_bytes(flows: int, outstanding_bytes: int, held_bytes: int) -> int:
    """Return how much credit to give a flow now; 0 until it is worth a frame.

    `outstanding_bytes` may still arrive on credit given before, `held_bytes` have arrived and are still in memory.
    """
    window = window_bytes(flows)
    room = window - outstanding_bytes - held_bytes
    return room if room >= window // 4 else 0
