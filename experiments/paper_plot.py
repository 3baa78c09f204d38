"""The paper's table as one picture: a panel for each link, bars by node count, the paper's own figures in grey.

A pure function of results. Refuses to do: everything that the paper's table has not (`experiments.plots`).
"""

from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import figures, paper
from experiments.figures import Case
from experiments.results import Results, Run

PANEL_IN, HEIGHT_IN = 3.3, 4.2
FTP: Final = 0  # in place of a node count
GREY: Final = "#9a9a9a"
Bars = dict[int, tuple[float, float]]  # mean and standard deviation by node count


def paper_bars(results: Results, colours: dict[str, Any]) -> Figure | None:
    """Draw a panel for each link of the paper's that was measured; None when there is none."""
    runs = figures.by_case(results)
    names = [name for name in paper.TABLE if any(case.profile == name for case in runs)]
    if not names:
        return None
    picture = Figure(figsize=(max(2, len(names)) * PANEL_IN, HEIGHT_IN), layout="constrained")
    for axes, name in zip(picture.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _panel(axes, name, {case: each for case, each in runs.items() if case.profile == name}, colours)
    picture.axes[0].set_ylabel("seconds, mean and standard deviation")
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in picture.axes]
    handles = {text: handle for pair in pairs for handle, text in pair}
    picture.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=2 if len(names) < 3 else len(handles),
        frameon=False,
    )
    return picture


def _panel(axes: Axes, name: str, runs: dict[Case, list[Run]], colours: dict[str, Any]) -> None:
    printed = paper.TABLE[name]
    counts = [*sorted({case.nodes for case in runs if case.nodes}), FTP]
    objects = max(run["objects"] for each in runs.values() for run in each)
    series: list[tuple[str, Bars, Any]] = []
    if objects == paper.OBJECTS:
        series.append(("as the paper printed it", {**printed.streaming, FTP: printed.ftp}, GREY))
    for peer, label in (("erlang", "the paper's design, here"), ("fascicle", "Fascicle"), ("ftp", "ftplib, vsftpd")):
        bars = {
            case.nodes: (found.mean, found.deviation)
            for case, each in runs.items()
            if case.peer == peer and (found := figures.seconds(each))
        }
        if bars:
            series.append((label, bars, colours[peer]))
    for place, count in enumerate(counts):
        here = [(label, bars[count], colour) for label, bars, colour in series if count in bars]
        width = 0.8 / max(1, len(here))
        for number, (label, (mean, deviation), colour) in enumerate(here):
            x = place + (number - (len(here) - 1) / 2) * width
            how = {"elinewidth": 1}
            axes.bar(x, mean, width * 0.95, yerr=deviation, color=colour, label=label, capsize=2, error_kw=how)
    axes.set_xticks(range(len(counts)), ["FTP" if count == FTP else str(count) for count in counts])
    axes.set_xlabel("nodes")
    axes.set_title(printed.name if objects == paper.OBJECTS else f"{printed.name}, {objects} objects")
