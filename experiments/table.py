"""Results as Markdown: the paper's table beside its own figures, then everything that was measured, link by link.

A pure function of results. Refuses to do: hiding what failed, was skipped, scaled or not finished.
"""

from collections.abc import Iterator, Sequence

from experiments import figures, paper, wanted
from experiments.figures import Case, Spread
from experiments.profiles import PAYLOAD_SHARE, Profile
from experiments.results import Results, Run

HEADS = (
    "what",
    "seconds",
    "median",
    "x floor",
    "goodput of link",
    "MB on the wire",
    "processor s, client + server",
    "peak MB, client + server (largest process)",
    "retransmitted",
    "runs",
)


def table(results: Results) -> str:
    """Return the report."""
    runs = figures.by_case(results)
    parts = [_head(results), _paper_table(results, runs)]
    parts += [_link(results, name, runs) for name in results["links"]]
    parts += [_wanted(results), _notes(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(results: Results) -> str:
    machine, options = results["machine"], results["options"]
    memory = machine["memory_bytes"] / 1e9
    lines = ["# Experiment"]
    if not results["complete"]:
        lines += ["", f"**Not complete**: {results['ended'] or 'still running'}. What follows is what was measured."]
    lines += [
        "",
        f"{results['started']} to {results['finished']}; {machine['processors']} x {machine['processor']}, "
        f"{memory:.0f} GB, {machine['system']}, kernel {machine['kernel']}, commit {machine['commit'] or 'unknown'}.",
        f"Workload `{options['workload']}`, seed {options['seed']}, encoding {options['encoding']}, "
        f"{'plain' if options['plain'] else 'TLS'}, congestion control {_algorithms(results)}.",
        "Client, server and link share this machine's processors.",
    ]
    return "\n".join(lines)


def _algorithms(results: Results) -> str:
    """Return what TCP used at both ends, as the kernel told."""
    found = {link.get("sysctl", {}).get("tcp_congestion_control", "unknown") for link in results["links"].values()}
    return ", ".join(sorted(found)) or "unknown"


def _paper_table(results: Results, runs: dict[Case, list[Run]]) -> str:
    """Return the table in the paper's layout; "" when nothing of it was run."""
    counts = sorted({case.nodes for case in runs if case.nodes} | {1, 5, 30})
    rows = [row for name in results["links"] for row in _paper_rows(name, counts, runs)]
    if not rows:
        return ""
    head = ["link", "design", *(f"{count} node{'s' * (count > 1)}" for count in counts), "FTP, 1 server"]
    text = "## The paper's table: seconds, mean +- standard deviation (and median)\n\n" + markdown(head, rows)
    notes = "\n".join(_scaling(results, runs))
    return f"{text}\n\n{notes}" if notes else text


def _paper_rows(name: str, counts: Sequence[int], runs: dict[Case, list[Run]]) -> Iterator[list[str]]:
    ftp = runs.get(Case(name, "ftp", 0), [])
    if name in paper.TABLE:
        printed = paper.TABLE[name]
        streaming = [_plus_minus(*printed.streaming[count]) if count in printed.streaming else "" for count in counts]
        yield [printed.name, "as the paper printed it", *streaming, _plus_minus(*printed.ftp)]
    for peer, design in (("erlang", "the paper's, here"), ("fascicle", "Fascicle"), ("fascicle-raw", "Fascicle, raw")):
        cells = [_seconds_cell(runs.get(Case(name, peer, count), [])) for count in counts]
        if any(cells):
            yield [name, design, *cells, _seconds_cell(ftp)]


def _scaling(results: Results, runs: dict[Case, list[Run]]) -> Iterator[str]:
    for name in results["links"]:
        objects = {run["objects"] for case, each in runs.items() if case.profile == name for run in each}
        if results["options"]["workload"] == "paper" and objects and objects != {paper.OBJECTS}:
            count = max(objects)
            yield (
                f"* `{name}`: measured with {count} of the paper's {paper.OBJECTS} images. Times here are as measured; "
                f"x {paper.OBJECTS / count:g} gives about those of all (a little too much: starting is paid once)."
            )
    if results["options"]["workload"] != "paper":
        name = results["options"]["workload"]
        yield f"* Measured with `{name}`, not with the paper's images: the paper's times are no measure for these."
    if "adsl" in results["links"]:
        yield f"* {paper.ADSL_NOTE}"


def _link(results: Results, name: str, runs: dict[Case, list[Run]]) -> str:
    profile, link = figures.profile_of(results, name), results["links"][name]
    here = {case: each for case, each in runs.items() if case.profile == name}
    lines = [f"## {name}: {profile.text()} (link made by {link['method']})"]
    if here:
        lines += [
            "",
            markdown(HEADS, [_row(case, each) for case, each in here.items()]),
            "",
            _calibrated(profile, here),
        ]
        lines += ["", *_told(here)]
    return "\n".join(lines)


def _row(case: Case, runs: list[Run]) -> list[str]:
    time, floors = figures.seconds(runs), figures.floors(runs)
    return [
        case.label(),
        _spread(time),
        number(time.median),
        f"{floors:.2f}" if floors else "",
        f"{1 / floors:.1%}" if floors else "",
        f"{figures.median(runs, 'wire_up_bytes') / 1e6:.1f}",
        " + ".join(f"{figures.median(runs, f'{end}_processor_s'):.2f}" for end in ("client", "server")),
        _peaks(runs),
        f"{figures.median(runs, 'retransmitted'):.0f}",
        str(time.count),
    ]


def _told(runs: dict[Case, list[Run]]) -> Iterator[str]:
    """Yield what the sender itself said of its median run, where it says anything."""
    for case, each in runs.items():
        told = figures.median_run(each)["told"]
        if told:
            used = ", ".join(f"{count} {name}" for name, count in sorted(told.get("encodings", {}).items()))
            flows, bound_by = told.get("flows", "?"), told.get("bound_by") or "nothing"
            yield f"* {case.label()}, median run: encodings {used or '?'}; {flows} flows; bound by {bound_by}"


def _calibrated(profile: Profile, runs: dict[Case, list[Run]]) -> str:
    """Return what the probes before the rounds found or could not find, and what the link itself cost."""
    every = [run for each in runs.values() for run in each]
    found = []
    for key, text, unit in (("round_trip_ms", "round trip", 1), ("up_bit_s", "up", 1e6), ("down_bit_s", "down", 1e6)):
        values = [run["calibration"][key] / unit for run in every if key in run["calibration"]]
        if values:
            found.append(f"{text} {_range(values)} {'ms' if unit == 1 else 'Mb/s'}")
    lost = [run["calibration"][f"{way}_loss_ratio"] for run in every for way in ("up", "down")]
    text = f"Probed before each round: {', '.join(found)}, loss {_range([100 * ratio for ratio in lost])} %."
    ways = (("up", profile.up_bit_s), ("down", profile.down_bit_s))
    unprobed = [way for way, rate in ways if rate and not any(f"{way}_bit_s" in run["calibration"] for run in every)]
    if unprobed:
        text += (
            f" The rate {' and '.join(unprobed)} was not probed: it is too high for datagrams, and loss slows a stream."
        )
    share = max(run["link_processor_s"] / run["process_s"] for run in every)
    return text + f" The link's own process took at most {share:.0%} of a processor." * bool(share)


def _wanted(results: Results) -> str:
    lines = [f"* {verdict.text()}" for verdict in wanted.judge(results)]
    return "\n".join(["## What is wanted", "", *lines]) if lines else ""


def _notes(results: Results) -> str:
    failed = [run for run in results["runs"] if "error" in run]
    lines = ["## Notes", ""]
    lines += [f"* Skipped: {entry['peer']}: {entry['reason']}." for entry in results["skipped"]]
    lines += [
        f"* Failed: {run['peer']} {run['nodes'] or ''} on {run['profile']}, run {run['run'] + 1}: {run['error']}"
        for run in failed
    ]
    lines += [
        f"* Floor: payload bytes x 8 / (rate x {PAYLOAD_SHARE}), the least time in full Ethernet frames. An emulated "
        "link counts 14 bytes a packet and no gap between frames, so that 0.99 is its least.",
        "* Fascicle's seconds end when everything is hashed, flushed to disk, receipted and committed. FTP, the "
        "paper's design and storescp flush nothing. Processor and memory are of all processes of an end, during the "
        "transfer.",
    ]
    return "\n".join(lines)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def number(value: float) -> str:
    """Return a time with three or four figures that matter."""
    return f"{value:.2f}" if value < 100 else f"{value:.1f}"


def _plus_minus(mean: float, deviation: float) -> str:
    return f"{number(mean)} +- {number(deviation)}"


def _peaks(runs: list[Run]) -> str:
    client, server, largest = (
        figures.median(runs, f"{name}_peak_bytes") / 1e6 for name in ("client", "server", "server_process")
    )
    return f"{client:.0f} + {server:.0f} ({largest:.0f})"


def _spread(found: Spread) -> str:
    return _plus_minus(found.mean, found.deviation) if found.count > 1 else number(found.mean)


def _seconds_cell(runs: list[Run]) -> str:
    if not runs:
        return ""
    found = figures.seconds(runs)
    return f"{_spread(found)} ({number(found.median)})" if found.count > 1 else _spread(found)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"
