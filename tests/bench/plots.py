"""One plot a figure, as SVG: the same bytes for the same results."""

from __future__ import annotations

import os
import re
from statistics import median
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from .goals import GOALS, OURS, Results, judge
from .rounds import Samples

INK, OTHERS, HIGHLIGHT, LIMIT = "#222222", "#9aa5b1", "#0b6e4f", "#c0392b"
STYLE: dict[str, Any] = {
    "svg.hashsalt": "serial-console",  # ids would be random
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.facecolor": "white",  # read on a dark page too
}
LEGEND: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1.0, 1.0),  # beside the title: there is room in every plot
    "frameon": False,
    "ncols": 2,
}


class Bars(NamedTuple):
    """A bar for each target: the median, with a dot for each round."""

    metric: str
    title: str
    unit: str
    log: bool = False


class Lines(NamedTuple):
    """A line for each target, over the number of sessions."""

    metric: str
    title: str
    unit: str


PLOTS: dict[str, Bars | Lines] = {
    "rtt": Bars("p50_us", "Echo round trip of a key, p50", "µs", log=True),
    "rttflood": Bars("p99_us", "Echo round trip while another session floods, p99", "µs", log=True),
    "flood": Bars("mb_per_s", "Guest output to the client", "MB/s", log=True),
    "uart": Bars("cpu_ms_per_mb", "CPU of relay and gateway at a real UART", "ms per MB"),
    "setup": Bars("p50_ms", "From connecting to the first echo, p50", "ms"),
    "memory": Lines("mib", "Memory a session adds (PSS)", "MiB"),
    "stall": Bars("growth_mib", "Growth in 60 s of a flood that the client does not read", "MiB"),
    "pace": Bars("kb_per_s", "What a real guest prints while its client is stalled", "KB/s"),
    "many": Lines("mib", "Memory a session adds (PSS), up to 500", "MiB"),
    "page": Bars("key_to_glyph_p50_ms", "From a key to its glyph in the page, p50", "ms"),
}


def draw(results: Results, directory: str) -> None:
    """Draw what was measured into ``directory``, a file a figure."""
    os.makedirs(directory, exist_ok=True)
    for name, samples in results.items():
        plot = PLOTS[name]
        with mpl.rc_context(STYLE):  # type: ignore[arg-type]
            figure = Figure(figsize=(8, 3.4), layout="constrained")
            axes = figure.subplots()
            axes.set_title(plot.title, loc="left", fontweight="bold")
            if isinstance(plot, Bars):
                _bars(axes, plot, samples)
                _goal(axes, name, plot.metric, results)
            else:
                _lines(axes, plot, samples)
            path = os.path.join(directory, f"{name}.svg")
            figure.savefig(path, metadata={"Date": None, "Title": plot.title})
        _name(path, plot.title)


def _bars(axes: Axes, plot: Bars, samples: Samples) -> None:
    shown = {name: values[plot.metric] for name, values in samples.items() if plot.metric in values}
    names = sorted(shown, key=lambda name: median(shown[name]), reverse=True)
    for place, name in enumerate(names):
        colour = HIGHLIGHT if name == OURS else OTHERS
        middle = median(shown[name])
        axes.barh(place, middle, color=colour, height=0.6)
        axes.plot(shown[name], [place] * len(shown[name]), ".", color=INK, markersize=3)
        axes.annotate(
            f"{middle:.3g}",
            (max(middle, *shown[name]), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(plot.unit)
    axes.margins(x=0.12)
    if plot.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()


def _goal(axes: Axes, figure: str, metric: str, results: Results) -> None:
    """Draw the first goal of what is shown."""
    for goal in GOALS:
        if (goal.figure, goal.metric) == (figure, metric):
            verdict = judge(goal, results)
            limit = goal.limit * (1.0 if verdict.theirs is None else verdict.theirs)
            if goal.peers and verdict.theirs is None:
                continue
            of = f" {verdict.peer}" if verdict.peer else ""
            axes.axvline(limit, color=LIMIT, linestyle="--", label=f"goal {goal.text}{of}")
            axes.legend(**LEGEND)
            return


def _lines(axes: Axes, plot: Lines, samples: Samples) -> None:
    """Metrics are named by what and how many: ``mib_50``."""
    for name, values in samples.items():
        found = {
            int(match[1]): median(sampled)
            for metric, sampled in values.items()
            if (match := re.fullmatch(rf"{plot.metric}_(\d+)", metric))
        }
        colour = HIGHLIGHT if name == OURS else OTHERS
        axes.plot(list(found), list(found.values()), "o-", color=colour, label=name)
        for count, value in found.items():
            axes.annotate(f"{value:.3g}", (count, value), xytext=(0, 6), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xticks(sorted(found), [str(count) for count in sorted(found)], minor=False)
    axes.minorticks_off()
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # what the points say must not reach the title
    axes.set_xlabel("sessions")
    axes.set_ylabel(plot.unit)
    axes.legend(**LEGEND)


def _name(path: str, title: str) -> None:
    """Give the picture a name for those who do not see it."""
    with open(path, encoding="utf-8") as file:
        svg = file.read()
    named = re.sub(
        r"(<svg [^>]*?)>", rf'\1 role="img">\n <title>{escape(title)}</title>', svg, count=1
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write(named)
