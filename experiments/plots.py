"""Results as pictures (PNG): time by link as the paper's table, time by node count, goodput and encodings over time.

Pure functions of results but for the files that they write. Refuses to do: showing windows, needing a display.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import figures, paper
from experiments.figures import Case
from experiments.paper_plot import GREY, paper_bars
from experiments.results import Results, Run

WIDTH_IN, HEIGHT_IN, DPI = 8.0, 4.5, 120
COLOURS: Final = tuple(f"C{number}" for number in (0, 9, 2, 3, 4, 5, 6, 1, 8))  # not C7: grey is the paper's
STYLE: Final[dict[Any, Any]] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write every picture that `results` have something for, and return their paths."""
    runs = figures.by_case(results)
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(results["options"]["peers"])}
    paths = []
    with mpl.rc_context(STYLE):
        if (whole := paper_bars(results, colours)) is not None:
            paths.append(folder / "paper.png")
            whole.savefig(paths[-1], dpi=DPI)
        for name in dict.fromkeys(case.profile for case in runs):
            here = {case: each for case, each in runs.items() if case.profile == name}
            title = f"{name}: {figures.profile_of(results, name).text()}"
            for kind, picture in (
                ("time", time_bars(here, title, colours)),
                ("nodes", time_by_nodes(here, title, colours)),
                ("goodput", goodput(here, title, figures.profile_of(results, name).up_bit_s, colours)),
                ("encodings", encodings(here, title)),
            ):
                if picture is not None:
                    paths.append(folder / f"{kind}-{name}.png")
                    picture.savefig(paths[-1], dpi=DPI)
    return paths


def time_bars(runs: dict[Case, list[Run]], title: str, colours: dict[str, Any]) -> Figure | None:
    """Draw mean and standard deviation of every case, the paper's own figures beneath where the load is the same."""
    bars = [(case.label(), figures.seconds(each), colours[case.peer]) for case, each in runs.items()]
    name = next(iter(runs)).profile
    printed = list(_printed(name)) if _is_whole(runs) else []
    floor_s = max(run["floor_s"] for each in runs.values() for run in each)
    picture, axes = _picture(title, height_in=1.6 + 0.3 * (len(bars) + len(printed)))
    labels = [label for label, *_ in bars] + [label for label, *_ in printed]
    means = [found.mean for _, found, _ in bars] + [mean for _, mean, _ in printed]
    errors = [found.deviation for _, found, _ in bars] + [deviation for *_, deviation in printed]
    axes.barh(
        labels,
        means,
        xerr=errors,
        color=[colour for *_, colour in bars] + [GREY] * len(printed),
        error_kw={"capsize": 3, "elinewidth": 1},
    )
    for row, (mean, error) in enumerate(zip(means, errors, strict=True)):
        axes.annotate(
            f"{mean:.2f}" if mean < 100 else f"{mean:.0f}",
            (mean + error, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    if floor_s:
        axes.axvline(floor_s, color="black", linestyle=":", linewidth=1)
        axes.annotate(
            f"floor {floor_s:.2f} s",
            (floor_s, 0),
            xycoords=("data", "axes fraction"),
            xytext=(4, 4),
            textcoords="offset points",
        )
    axes.set_ylim(len(bars) + len(printed) + 0.1, -0.6)  # downwards, with room for the floor's name
    axes.margins(x=0.12)
    axes.set_xlabel("seconds, mean and standard deviation (shorter is better)")
    return picture


def time_by_nodes(runs: dict[Case, list[Run]], title: str, colours: dict[str, Any]) -> Figure | None:
    """Draw time against node count; None when nothing was run with several."""
    lines: dict[str, list[Case]] = {}
    for case in runs:
        if case.nodes:
            lines.setdefault(case.peer, []).append(case)
    if not any(len(cases) > 1 for cases in lines.values()):
        return None
    picture, axes = _picture(title)
    for peer, cases in lines.items():
        found = [figures.seconds(runs[case]) for case in cases]
        axes.errorbar(
            [case.nodes for case in cases],
            [one.mean for one in found],
            yerr=[one.deviation for one in found],
            marker="o",
            capsize=3,
            color=colours[peer],
            label=peer,
        )
    ftp = runs.get(Case(next(iter(runs)).profile, "ftp", 0))
    if ftp:
        axes.axhline(figures.seconds(ftp).mean, color=colours["ftp"], linestyle="--", label="ftp, 1 server")
    axes.set_xscale("log")
    counts = sorted({case.nodes for case in runs if case.nodes})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("storage nodes")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False)
    return picture


def goodput(runs: dict[Case, list[Run]], title: str, rate_bit_s: float, colours: dict[str, Any]) -> Figure | None:
    """Draw what came out of the link over time, a strip for each peer: the median run of its fastest node count."""
    found = {
        case: series
        for case in _fastest(runs).values()
        if (series := smooth(figures.goodput_series(figures.median_run(runs[case]))))
    }
    if not found:
        return None
    picture = Figure(figsize=(WIDTH_IN, 1.1 + 0.75 * len(found)), layout="constrained")
    strips = picture.subplots(len(found), sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (case, series) in zip(strips, found.items(), strict=True):
        times, rates = zip(*series, strict=True)
        axes.fill_between(times, rates, color=colours[case.peer], alpha=0.35, linewidth=0)
        axes.plot(times, rates, color=colours[case.peer], linewidth=1)
        axes.annotate(case.label(), (1.01, 0.5), xycoords="axes fraction", va="center")
        if rate_bit_s:
            axes.axhline(rate_bit_s / 1e6, color="black", linestyle=":", linewidth=1)
    strips[0].set_title(f"{title}\nout of the link over time: the median run of each one's fastest node count")
    strips[0].set_ylim(0, rate_bit_s * 1.1 / 1e6 or None)
    strips[0].set_xlim(left=0)
    strips[-1].set_xlabel("seconds since the client was started")
    picture.supylabel("Mb/s", fontsize="medium")
    return picture


def smooth(series: list[tuple[float, float]], points: int = 100) -> list[tuple[float, float]]:
    """Return at most about `points` means of neighbours, in Mb/s."""
    step = max(1, len(series) // points)
    groups = [series[start : start + step] for start in range(0, len(series), step)]
    return [
        (sum(at for at, _ in group) / len(group), sum(rate for _, rate in group) / len(group) / 1e6) for group in groups
    ]


def encodings(runs: dict[Case, list[Run]], title: str) -> Figure | None:
    """Draw how many objects had gone in each encoding over time; None where the sender keeps no account of it."""
    case = _fastest(runs).get("fascicle")
    timeline = figures.median_run(runs[case])["told"].get("timeline") if case else None
    if not timeline or not timeline[-1]["encodings"]:
        return None
    picture, axes = _picture(f"{title}: encodings chosen over time")
    times = [sample["t_s"] for sample in timeline]
    last = timeline[-1]["encodings"]
    layers = {
        f"{name}: {last.get(name, 0)}": [sample["encodings"].get(name, 0) for sample in timeline]
        for name in sorted(last, key=lambda name: -int(last[name]))
    }
    axes.stackplot(times, *layers.values(), labels=layers.keys(), alpha=0.8)
    axes.set_xlabel("seconds")
    axes.set_ylabel("objects durable, by encoding")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper left", reverse=True)
    return picture


def _fastest(runs: dict[Case, list[Run]]) -> dict[str, Case]:
    """Return of each peer the case with the least median time."""
    found: dict[str, Case] = {}
    for case in sorted(runs, key=lambda case: figures.seconds(runs[case]).median):
        found.setdefault(case.peer, case)
    return found


def _printed(name: str) -> Iterator[tuple[str, float, float]]:
    if name in paper.TABLE:
        printed = paper.TABLE[name]
        for count, (mean, deviation) in printed.streaming.items():
            yield f"paper: streaming, {count} node{'s' * (count > 1)}", mean, deviation
        yield "paper: FTP", *printed.ftp


def _is_whole(runs: dict[Case, list[Run]]) -> bool:
    return all(run["objects"] == paper.OBJECTS for each in runs.values() for run in each)


def _picture(title: str, *, height_in: float = HEIGHT_IN) -> tuple[Figure, Axes]:
    picture = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = picture.add_subplot()
    axes.set_title(title)
    return picture, axes
