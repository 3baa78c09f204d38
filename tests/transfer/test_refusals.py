"""What a refusal means for an object: the whole table."""

import pytest

from transfer.errors import (
    BusyError,
    ConflictError,
    CorruptError,
    FascicleError,
    FullError,
    NotStoredError,
    ProtocolError,
    SettingsError,
    StorageError,
    UnauthorisedError,
    UnreachableError,
)
from transfer.ledger import Ledger
from transfer.outcomes import Counters
from transfer.refusals import DAMAGED_MAX, Fate, judge
from transfer.work import Item

TABLE = [  # (error, patient, not any more)
    (CorruptError, Fate.AGAIN, Fate.AGAIN),
    (FullError, Fate.ELSEWHERE, Fate.ELSEWHERE),
    (StorageError, Fate.ELSEWHERE, Fate.ELSEWHERE),
    (BusyError, Fate.LATER, Fate.FAIL),
    (UnreachableError, Fate.LATER, Fate.FAIL),
    (UnauthorisedError, Fate.RENEW, Fate.FAIL),
    (ProtocolError, Fate.FAIL, Fate.FAIL),
    (SettingsError, Fate.AGAIN, Fate.AGAIN),
    (NotStoredError, Fate.FAIL, Fate.FAIL),
    (ConflictError, Fate.FAIL, Fate.FAIL),
    (FascicleError, Fate.FAIL, Fate.FAIL),
]


def item(*refused_by: str, damaged_count: int = 1) -> Item:
    refused = dict.fromkeys(refused_by, FullError("full"))
    return Item("ab" * 32, 10, [], None, refused_by=refused, damaged_count=damaged_count)


@pytest.mark.parametrize(("error", "patient", "impatient"), TABLE)
def test_the_table(error: type[FascicleError], patient: Fate, impatient: Fate) -> None:
    for is_patient, fate in ((True, patient), (False, impatient)):
        assert judge(item(), error("why"), nodes={"a", "b"}, node_id="a", patient=is_patient) is fate


@pytest.mark.parametrize("error", [FullError, StorageError])
def test_when_no_other_node_is_left_full_is_final(error: type[FascicleError]) -> None:
    def fate(*refused_by: str, nodes: str = "abc") -> Fate:
        return judge(item(*refused_by), error("why"), nodes=set(nodes), node_id="a", patient=True)

    assert fate() is fate("b") is fate("a", "b") is Fate.ELSEWHERE
    assert fate("b", "c") is fate(nodes="a") is Fate.FAIL


def test_an_encoding_that_a_node_does_not_know_is_left_off_and_raw_it_would_know() -> None:
    raw = item()
    raw.raw_only = True
    assert judge(raw, SettingsError("why"), nodes={"a"}, node_id="a", patient=True) is Fate.FAIL


def test_damage_is_forgiven_a_few_times() -> None:
    fates = [
        judge(item(damaged_count=count), CorruptError("why"), nodes={"a"}, node_id="a", patient=True)
        for count in range(1, DAMAGED_MAX + 2)
    ]
    assert fates == [Fate.AGAIN] * (DAMAGED_MAX - 1) + [Fate.FAIL] * 2


async def test_waits_are_not_counted_as_damage() -> None:
    ledger, one = Ledger(Counters(), patience_s=60.0), item(damaged_count=0)
    ledger.nodes = {"a"}
    ledger.take_answer(one, stored=False)
    errors = [BusyError("why")] * 9 + [CorruptError("why")] * DAMAGED_MAX
    fates = []
    for error in errors:
        ledger.work.take_nowait("a")
        fates.append(ledger.refused(one, "a", error))
    assert fates == [Fate.LATER] * 9 + [Fate.AGAIN] * (DAMAGED_MAX - 1) + [Fate.FAIL]


def test_the_item_is_left_as_it_is() -> None:
    judged, same = item("b"), item("b")
    judge(judged, FullError("full"), nodes={"a", "b", "c"}, node_id="a", patient=True)
    assert judged.refused_by.keys() == same.refused_by.keys()
    assert (judged.damaged_count, judged.raw_only) == (1, False)
