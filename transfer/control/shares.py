"""How much of an object goes in one send: about a tenth of a second of the flow's rate. Pure.

What a send was given can no longer be overtaken, paused or capped; what is split finely costs a frame header, a call
and a wake-up for each part. So a share follows the rate: small at once when a send took long, doubled while sends are
quick. Refuses to do: sending.
"""

from typing import Final

SHARE_S: Final = 0.1
SHARE_BYTES: Final = 32 << 10  # at first
SHARE_BYTES_MIN: Final = 16 << 10
SHARE_BYTES_MAX: Final = 1 << 20  # a frame's payload


def next_share_bytes(share_bytes: int, sent_bytes: int, took_s: float) -> int:
    """Return the next share after a send of `sent_bytes` that took `took_s`; a power of two."""
    if sent_bytes < share_bytes // 2:
        return share_bytes  # the end of an object says little
    wanted_bytes = sent_bytes * SHARE_S / max(took_s, 1e-6)
    if wanted_bytes >= 2 * share_bytes:
        return min(share_bytes * 2, SHARE_BYTES_MAX)
    while share_bytes > SHARE_BYTES_MIN and wanted_bytes < share_bytes / 2:
        share_bytes //= 2
    return share_bytes
