"""Credit: shares are fair, one whole frame always fits, and no client ever waits for credit that does not come."""

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.credit import FLOWS_MAX, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN, grant_bytes, window_bytes
from nodes.incoming import MEMORY_BYTES
from transfer.flow import LEAST_PAYLOAD_BYTES
from transfer.protocol.frames import PAYLOAD_BYTES_MAX

MIB = 1 << 20


@pytest.mark.parametrize(
    ("flows", "window"), [(0, 16), (1, 16), (2, 16), (5, 6.4), (8, 4), (16, 2), (32, 1.5), (48, 1.5)]
)
def test_a_window_is_a_fair_share_between_its_bounds(flows: int, window: float) -> None:
    assert window_bytes(flows) == int(window * MIB)


def test_all_windows_together_are_bounded() -> None:
    assert max(flows * window_bytes(flows) for flows in range(1, FLOWS_MAX + 1)) <= 72 * MIB
    assert all(WINDOW_BYTES_MIN <= window_bytes(flows) <= WINDOW_BYTES_MAX for flows in range(FLOWS_MAX + 1))
    assert WINDOW_BYTES_MIN >= PAYLOAD_BYTES_MAX


@given(st.integers(1, FLOWS_MAX), st.integers(0, 16 * MIB), st.integers(0, 16 * MIB))
def test_a_grant_never_leads_over_the_window_and_is_worth_a_frame(flows: int, outstanding: int, held: int) -> None:
    granted = grant_bytes(flows, outstanding, held)
    assert granted == 0 or granted >= window_bytes(flows) // 4
    assert granted == 0 or outstanding + held + granted == window_bytes(flows)


class Flow:
    """A client as `transfer.flow` sends, and a node as `nodes.session` keeps: bytes only."""

    def __init__(self, sizes: list[int], flows: int) -> None:
        self.sizes = deque(sizes)
        self.flows = flows
        self.credit = window_bytes(flows)
        self.under_way = 0  # of the object that is being sent: how much has gone
        self.pending = 0  # the part of it that the node keeps in memory
        self.held = 0
        self.committing: list[int] = []

    def send(self, block_bytes: int = PAYLOAD_BYTES_MAX) -> bool:
        """Send one frame of at most `block_bytes`, or tell that there is no credit for it."""
        rest = min(self.sizes[0] - self.under_way, block_bytes)
        if self.credit < min(rest, LEAST_PAYLOAD_BYTES):
            return False
        length = min(rest, self.credit)
        self.credit -= length
        self.under_way += length
        pending = self.pending + length if self.pending + length <= MEMORY_BYTES else length  # the rest is spilt
        self.held += pending - self.pending
        self.pending = pending
        self.grant()
        if self.under_way == self.sizes[0]:
            self.sizes.popleft()
            self.committing.append(self.pending)
            self.under_way = self.pending = 0
        return True

    def commit(self, index: int) -> None:
        self.held -= self.committing.pop(index)
        self.grant()

    def grant(self) -> None:
        self.credit += grant_bytes(self.flows, self.credit, self.held)


sizes = st.lists(st.one_of(st.integers(1, 3 * MIB), st.sampled_from([1, MIB - 1, MIB, MIB + 1, 9 * MIB])), max_size=30)


@settings(max_examples=300, deadline=None)
@given(sizes, st.integers(1, FLOWS_MAX), st.randoms(use_true_random=False))
def test_a_client_and_a_node_always_come_to_the_end(sizes: list[int], flows: int, chance: random.Random) -> None:
    flow = Flow(sizes, flows)

    def send() -> bool:
        return flow.send(chance.choice((PAYLOAD_BYTES_MAX, chance.randint(1 << 16, PAYLOAD_BYTES_MAX))))

    while flow.sizes or flow.committing:
        flow.flows = max(1, min(FLOWS_MAX, flow.flows + chance.randint(-1, 1)))
        moved = bool(flow.sizes) and chance.random() < 0.7 and send()
        if not moved and flow.committing:
            flow.commit(chance.randrange(len(flow.committing)))
        elif not moved:
            assert send(), f"no credit: {flow.credit} of {window_bytes(flow.flows)}, {flow.held} held"
        assert flow.credit + flow.held <= WINDOW_BYTES_MAX
    assert flow.held == 0


def test_the_object_that_once_waited_for_ever_now_ends() -> None:
    """The largest number of flows, and a frame cut so that its rest is short: 124 KiB, then 900 of 1024 KiB."""
    flow = Flow([124 << 10, MIB, 3 * MIB], FLOWS_MAX)
    while flow.sizes:
        if not flow.send():
            flow.commit(0)
    assert sum(flow.committing) == flow.held
