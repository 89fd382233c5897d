"""What do results look like? Plots as SVG, drawn by matplotlib; equal results give an equal text, to the byte.

ablation-<recipe>     a metric of a recipe, and with one setting changed
sweep-<name>          a metric over the values of one setting, with the deviation over seeds
weights-<recipe>      how many edges of each behaviour have which weight
reliability-<data>    what came true of what was predicted
curve-<data>-<metric> valid over epochs
scale-<benchmark>     seconds of an epoch over the number of edges
search-<recipe>       valid over each setting that a search varied
coldstart-<recipe>    a metric of new users by how many items they give
"""

from __future__ import annotations

import io
import itertools
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from macrorec.report.cells import Row, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 20
"""Values of a setting whose largest is so many times the smallest stand on a logarithmic axis."""
STYLE = {
    "svg.hashsalt": "macrorec",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
MARKS = "os^vDPX*<>"


def ablation(study: Row) -> str:
    """Mean and standard deviation over seeds of each variant, a line each; a dashed line marks the first, the whole."""
    values = {change: [*own.values()] for change, own in study["values"].items()}
    means = [statistics.mean(own) for own in values.values()]
    spans = [statistics.stdev(own) if len(own) > 1 else 0.0 for own in values.values()]
    with figure(6, 0.6 + 0.28 * len(means)) as (drawing, text):
        axes = drawing.subplots()
        axes.errorbar(means, range(len(means)), xerr=spans, fmt="o", markersize=4, capsize=3)
        axes.axvline(means[0], color="0.5", linestyle="--", linewidth=1)
        axes.set_yticks(range(len(means)), [verbatim(change) for change in values], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(f"{study['metric']} on test")
    return text[0]


def sweep(result: Row) -> str:
    """The chosen metric on valid and test over the values of a sweep, with the standard deviation over seeds."""
    values, metric = [entry["value"] for entry in result["values"]], result["metric"]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = values if numbers else list(range(len(values)))
    with drawn(result["key"], metric) as (axes, text):
        for part, mark in zip(("valid", "test"), MARKS, strict=False):
            points = [
                (place, entry[part][metric]["mean"], entry[part][metric]["deviation"] or 0.0)
                for place, entry in zip(places, result["values"], strict=True)
                if metric in entry[part]
            ]
            if points:
                x, mean, deviation = zip(*sorted(points), strict=True)
                axes.errorbar(x, mean, yerr=deviation, marker=mark, capsize=3, label=part)
        if numbers and min(places) > 0 and max(places) / min(places) >= WIDE:
            axes.set_xscale("log")
        if not numbers:
            axes.set_xticks(places, [str(value) for value in values])
        axes.legend()
    return text[0]


def reliability(models: Mapping[str, Sequence[Row]]) -> str:
    """The reliability diagram of models: mean prediction of each bin against the share of positives in it.

    Bins of equal size, pooled over the runs of a model, each weighted by its impressions.
    """
    with drawn("mean predicted probability", "share of positives") as (axes, text):
        ends: list[float] = []
        for (name, runs), mark in zip(models.items(), itertools.cycle(MARKS)):
            points = pooled(runs)
            ends += [value for point in points for value in point]
            axes.plot(*zip(*points, strict=True), marker=mark, markersize=4, linewidth=1, label=name)
        axes.plot((min(ends), max(ends)), (min(ends), max(ends)), color="0.5", linestyle="--", label="calibrated")
        axes.legend(fontsize=7)
    return text[0]


def pooled(runs: Sequence[Row]) -> list[tuple[float, float]]:
    """(mean prediction, share of positives) of each bin of equal size, over all ``runs``."""
    bins: dict[int, list[Row]] = {}
    for point in (point for run in runs for point in run["reliability"] if point["bins"] == "mass"):
        bins.setdefault(point["bin"], []).append(point)
    result = []
    for _, points in sorted(bins.items()):
        n = sum(point["n"] for point in points)
        predicted, positive = (sum(p[key] * p["n"] for p in points) / n for key in ("predicted", "positive"))
        result.append((predicted, positive))
    return result


def curves(runs: Sequence[Row], metric: str) -> str:
    """``metric`` on valid over epochs: a colour per recipe, a line per seed."""
    with drawn("epoch", f"{metric} on valid") as (axes, text):
        colours: dict[str, str] = {}
        for row in runs:
            known, name = label(row) in colours, label(row)
            colours.setdefault(name, f"C{len(colours)}")
            points = [(point["epoch"], point[metric]) for point in row["curve"]]
            shown = None if known else name if len(name) < 60 else name[:57] + "..."
            axes.plot(*zip(*points, strict=True), color=colours[name], linewidth=1, label=shown)
        axes.legend(fontsize=7)
    return text[0]


def scale(line: Row) -> str:
    """Seconds of an epoch over edges, both logarithmic, beside a straight line through the largest size."""
    points = sorted((point["edges"], point["seconds"]) for point in line["points"])
    edges, seconds = zip(*points, strict=True)
    with drawn("edges", "seconds per epoch") as (axes, text):
        axes.plot(edges, seconds, marker="o", label=line["name"])
        linear = [seconds[-1] * n / edges[-1] for n in edges]
        axes.plot(edges, linear, color="0.5", linestyle="--", label="linear in edges")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend()
    return text[0]


def search(metric: str, trials: Sequence[Row], mattered: Sequence[tuple[str, float]]) -> str:
    """``metric`` of each trial on valid over each setting: a panel per setting, what explains most first."""
    across = 3
    down = -(-len(mattered) // across)
    with figure(across * 2.6, down * 2.1) as (drawing, text):
        panels = drawing.subplots(down, across, sharey=True, squeeze=False)
        for axes in panels.flat[len(mattered) :]:
            axes.set_axis_off()
        for axes, (key, share) in zip(panels.flat, mattered, strict=False):
            settings = [trial["settings"][key] for trial in trials]
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in settings)
            names = sorted({str(value) for value in settings})
            places = settings if numbers else [names.index(str(value)) for value in settings]
            axes.plot(places, [trial["value"] for trial in trials], "o", markersize=3, alpha=0.6)
            if numbers and min(places) > 0 and max(places) / min(places) >= WIDE:
                axes.set_xscale("log")
            if not numbers:
                axes.set_xticks(range(len(names)), [verbatim(name) for name in names])
                axes.margins(x=0.5)
            axes.set_title(f"{key}: {share:.0%}", fontsize=8)
        drawing.supylabel(f"{metric} on valid", fontsize=8)
    return text[0]


def coldstart(result: Row) -> str:
    """The metric of each way to serve new users over the number of items that they give; all items stand last."""
    places = range(len(result["items"]))
    with drawn("items of a new user", result["metric"]) as (axes, text):
        for (way, cells), mark in zip(result["ways"].items(), itertools.cycle(MARKS)):
            own = [cell[result["metric"]] for cell in cells]
            spans = [value["deviation"] or 0.0 for value in own]
            line = "-" if way in ("fold-in", "retrained") else ":"
            means = [value["mean"] for value in own]
            axes.errorbar(places, means, yerr=spans, marker=mark, linestyle=line, capsize=3, label=way)
        axes.set_xticks(places, [str(h) for h in result["items"]])
        axes.legend(fontsize=7)
    return text[0]


def weights(result: Row) -> str:
    """The share of the edges of each behaviour over their weight (Fig. 5 of SWGCN), on the axis of its bins."""
    borders = result["bins"]
    with drawn("edge weight", "share of the behaviour's edges") as (axes, text):
        for own in result["behaviors"]:
            if own["edges"]:
                shares = [count / own["edges"] for count in own["histogram"]]
                axes.stairs(shares, borders, fill=True, alpha=0.25)
                axes.stairs(
                    shares, borders, color=axes.patches[-1].get_facecolor()[:3], label=verbatim(own["behavior"])
                )
        steps = [upper - lower for lower, upper in itertools.pairwise(borders)]
        if max(steps) > 2 * min(steps):
            axes.set_xscale("log")
        axes.legend()
    return text[0]


def verbatim(text: str) -> str:
    """A name as matplotlib draws it as it is: without formulas."""
    return text.replace("$", r"\$")


@contextmanager
def drawn(x: str, y: str) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; when the block ends, the list holds the SVG."""
    with figure(6, 3.6) as (drawing, text):
        axes = drawing.subplots()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        yield axes, text


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """A figure of so many inches; when the block ends, the list holds the SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    text: list[str] = []
    settings: Any = STYLE
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # text is drawn by whoever shows the SVG
        drawing = Figure(figsize=(width, height), layout="constrained")
        yield drawing, text
        buffer = io.StringIO()
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text.append("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n")
