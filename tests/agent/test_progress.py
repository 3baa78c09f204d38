"""What a technician reads while a transfer runs."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.progress import Snapshot, open_progress, render, render_line, size_text, time_text

HALF = Snapshot(
    elapsed_s=10.0,
    objects_done=4,
    objects_total=8,
    objects_skipped=1,
    objects_failed=2,
    bytes_done=50_000_000,
    bytes_total=100_000_000,
    rate_now_bytes_s=5_000_000,
    node_bytes={"node-2": 75, "node-1": 25},
    bound_by="link",
)
LINE = (
    "objects 4 of 8, 1 stored already, 2 failed; 50.0 MB of 100 MB; "
    "5.00 MB/s now, 5.00 MB/s mean, 0:10 gone, 0:10 to go, bound by link"
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_block_names_everything() -> None:
    assert render(HALF, 80).splitlines() == [
        "[" + "#" * 28 + "." * 27 + "]  50% 50.0 MB of 100 MB",
        "objects 4 of 8, 1 stored already, 2 failed",
        "5.00 MB/s now, 5.00 MB/s mean, 0:10 gone, 0:10 to go, bound by link",
        "node-1 25%  node-2 75%",
    ]


def test_the_line_names_everything() -> None:
    assert render_line(HALF) == LINE


def test_totals_that_are_not_known_are_not_invented() -> None:
    assert render_line(Snapshot(bytes_done=3)) == "objects 0; 3 B; 0 B/s now, 0 B/s mean, 0:00 gone, - to go"


def test_a_transfer_of_which_all_was_stored_ends_full() -> None:
    stored = Snapshot(objects_done=8, objects_total=8, objects_skipped=8, bytes_total=0)
    assert render(stored, 40).startswith("[" + "#" * 22 + "] 100%")


def test_thirty_nodes_fit() -> None:
    shares = render(Snapshot(node_bytes={f"node-{number:02}": 1 for number in range(30)}), 60).splitlines()[-1]
    assert shares == "node-00 3%  node-01 3%  node-02 3%  node-03 3%  +26 nodes"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_999_000, "10.0 MB"), (99_970_000, "100 MB"), (5e15, "5000 TB")],
)
def test_sizes_have_three_digits(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(None, "-"), (0, "0:00"), (59.6, "1:00"), (3661, "1:01:01"), (1e9, "-")])
def test_times(seconds: float | None, text: str) -> None:
    assert time_text(seconds) == text


counts = st.integers(0, 10**15)


@given(
    st.builds(
        Snapshot,
        elapsed_s=st.floats(0, 1e9),
        objects_done=counts,
        objects_total=st.none() | counts,
        bytes_done=counts,
        bytes_total=st.none() | counts,
        rate_now_bytes_s=st.floats(0, 1e13),
        node_bytes=st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,63}", fullmatch=True), counts, max_size=40),
        bound_by=st.sampled_from(["", "link", "processor", "disk", "receiver", "rate"]),
    ),
    st.integers(-5, 300),
)
def test_any_snapshot_fits_any_width(snapshot: Snapshot, width: int) -> None:
    assert all(len(line) <= max(20, width) for line in render(snapshot, width).splitlines())
    assert "\n" not in render_line(snapshot)


def test_json_shows_nothing() -> None:
    stream = Terminal()
    with open_progress(as_json=True, stream=stream) as progress:
        progress.update(HALF)
    assert stream.getvalue() == ""


def test_plain_lines_are_few_and_the_last_is_shown() -> None:
    stream = io.StringIO()
    with open_progress(as_json=False, stream=stream) as progress:
        for _ in range(1000):
            progress.update(Snapshot())
        progress.update(HALF)
    assert stream.getvalue() == LINE + "\n"


def test_a_terminal_ends_with_the_last_block() -> None:
    stream = Terminal()
    with open_progress(as_json=False, stream=stream) as progress:
        for _ in range(1000):
            progress.update(Snapshot())
        progress.update(HALF)
    assert stream.getvalue().count("bound by link") == 2  # shown, and drawn once more at the end
    assert stream.getvalue().count("objects 0") == 1


def test_a_closed_pipe_does_not_stop_a_transfer() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with open_progress(as_json=False, stream=Gone()) as progress:
        progress.update(HALF)
