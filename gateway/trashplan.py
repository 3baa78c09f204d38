"""What becomes of copies that were put aside: a pure function of what the catalogue says of their objects now.

| the object | its time has passed | otherwise |
|---|---|---|
| is shown, and short of replicas without this copy | put back | put back |
| is shown, and has as many as wished elsewhere | deleted when these were read again | stays |
| is nobody's still, and this catalogue had it put aside | deleted | stays |
| is not known, though it once was (an old catalogue) | stays until somebody says | stays |

Refuses to do: I/O.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from gateway.extraplan import Held
from transfer.protocol.messages import Discarded


class Facts(msgspec.Struct, frozen=True):
    """What the catalogue says: of shown objects who holds them; which are nobody's; which it had put aside here."""

    shown: Mapping[bytes, Held]
    nobodys: AbstractSet[bytes]
    put_aside: AbstractSet[bytes]


class Verdict(msgspec.Struct, frozen=True):
    """What is to be put back, what may be deleted, and what may be once as many as wished were read again."""

    restore: list[Discarded]
    purge: list[Discarded]
    verify: list[Discarded]


def judge(
    entries: Iterable[Discarded],
    facts: Facts,
    relied_on: AbstractSet[str],
    counted: AbstractSet[str],
    *,
    at_once: bool,
) -> Verdict:
    """Return what becomes of the entries of one node.

    Copies count on the nodes `relied_on`; they can be read again, so that others may go, on the nodes `counted`.

    `at_once`: an operator wants them deleted, so time and who had them put aside do not matter.
    """
    verdict = Verdict([], [], [])
    mine = facts.nobodys if at_once else facts.put_aside
    for entry in entries:
        held = facts.shown.get(entry.object_id)
        is_due = at_once or entry.due_s == 0
        if held is not None:
            if len(held.holders & relied_on) < held.wished:
                verdict.restore.append(entry)
            elif is_due and len(held.holders & counted) >= held.wished:
                verdict.verify.append(entry)
        elif is_due and entry.reason == "orphan" and entry.object_id in facts.nobodys & mine:
            verdict.purge.append(entry)
    return verdict
