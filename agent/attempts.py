"""What the attempts of one `fascicle send` come to: a transfer that the gateway does not commit is made anew.

An object counts once, as sent if any attempt sent it, although a later one found it stored; what it cost counts each
time. Pure. Refuses to do: sending, deciding whether there is another attempt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transfer.outcomes import Counters, Outcome


@dataclass(frozen=True, slots=True)
class Attempt:
    """One transfer: how far it is, and what became of its files so far."""

    counters: Counters = field(default_factory=Counters)
    outcomes: list[Outcome] = field(default_factory=list)


def add_up(attempts: Sequence[Attempt]) -> Counters:
    """Return what was done in all; the last of `attempts` (at least one) says which files went at last."""
    last = attempts[-1]
    if len(attempts) == 1:
        return last.counters
    sent_bytes = {
        outcome.object_id: outcome.source.size_bytes
        for attempt in attempts
        for outcome in attempt.outcomes
        if outcome.error is None and not outcome.skipped
    }
    went = [outcome.object_id for outcome in last.outcomes if outcome.error is None]
    sent = sent_bytes.keys() & set(went)
    total = Counters(
        objects=len(sent),
        bytes=sum(sent_bytes[object_id] for object_id in sent),
        skipped=len(went) - len(sent),
        failed=last.counters.failed,
        timeline=last.counters.timeline,
    )
    for attempt in attempts:
        total.add_cost(attempt.counters)
    return total
