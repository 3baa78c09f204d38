"""What bound a transfer: link, processor, disk, receiver or rate, from where its flows' time went. Pure.

The sender's waits say what its tasks stood before; TCP_INFO tells apart what a send waited for: a full window of the
peer is the receiver, a backlog in the kernel the link, and neither, beside a busy processor, the processor: then
sends only look long because the loop comes round to them late. Where they waited for their turn it is the rate: the
cap, the background's, or a more urgent transfer. Refuses to do: measuring.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Bound = Literal["link", "processor", "disk", "receiver", "rate", ""]
PROCESSOR_RATIO: Final = 0.8  # of one core: the rest goes to waiting for threads and the kernel
RECEIVER_RATIO: Final = 0.5  # of the kernel's busy time
BACKLOG_RATIO: Final = 0.5  # of the samples


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the time went, in seconds summed over flows.

    `processor_ratio`: processor time per elapsed time. The rest from TCP_INFO: busy time, the part of it that the
    peer's window was full, and the share of samples with unsent bytes in the kernel; None where it is not known.
    """

    waits_s: Mapping[str, float]  # source, receiver (credit), link (sends), rate (turns)
    processor_ratio: float
    busy_s: float | None = None
    rwnd_limited_s: float | None = None
    backlog_ratio: float | None = None


def bound_by(evidence: Evidence) -> Bound:
    """Name what bound the transfer, "" when nothing was waited for."""
    waits_s = evidence.waits_s
    longest = max(waits_s, key=lambda what: waits_s[what])
    if waits_s[longest] <= 0:
        return ""
    if longest == "source":
        return "processor" if evidence.processor_ratio > PROCESSOR_RATIO else "disk"
    if longest == "receiver":
        return "receiver"
    if longest == "rate":
        return "rate"
    return _of_sends(evidence)


def _of_sends(evidence: Evidence) -> Bound:
    if evidence.busy_s and (evidence.rwnd_limited_s or 0.0) > RECEIVER_RATIO * evidence.busy_s:
        return "receiver"
    if evidence.backlog_ratio is None or evidence.backlog_ratio > BACKLOG_RATIO:
        return "link"
    return "processor" if evidence.processor_ratio > PROCESSOR_RATIO else "link"
