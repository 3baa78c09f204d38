"""The outside journal: what was acknowledged, and what may be found afterwards.

It lives outside the simulated machine, so nothing that happens there touches it. An object that rots on the disk
(`spoil`) is out of the promise of one copy until that is noticed, and never may wrong bytes be given out for it;
acknowledged again, it is promised again.
"""

from collections import Counter

from tests.faults.histories.world import Violation


class Journal:
    """Of named things, each with the one content that it may have."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.spoiled: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.found: Counter[str] = Counter()  # how often a name was forgotten

    def acknowledge(self, name: str, *, checked: bool = True) -> None:
        """Note a promise; one that was given without reading the bytes says nothing of a spoiled file."""
        self.counts["acknowledged"] += 1
        if checked:
            self.spoiled.discard(name)
        if name not in self.spoiled:
            self.acknowledged.add(name)

    def spoil(self, name: str) -> None:
        self.counts["spoiled"] += 1
        self.spoiled.add(name)

    def forget(self, name: str) -> None:
        """Note that a spoiled file was found out, or an object let go of."""
        self.acknowledged.discard(name)
        self.spoiled.discard(name)
        self.found[name] += 1

    def must_be_there(self, name: str) -> bool:
        return name in self.acknowledged and name not in self.spoiled


def require(holds: bool, what: str) -> None:
    """Say that a promise is broken unless it `holds`."""
    if not holds:
        raise Violation(what)
