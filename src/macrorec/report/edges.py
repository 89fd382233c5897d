"""How does a model weigh the edges of each behaviour? Quantiles and a histogram of its edge weights, on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from macrorec.errors import ConfigError
from macrorec.eval.ranking import evaluating
from macrorec.report.cells import Row, code, picture, table
from macrorec.restore import restore
from macrorec.store import Run

Floats = npt.NDArray[np.float64]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
EVEN = (0.05, 0.95)
BINS = 40
MEANS = "n is how many edges the user has by the behaviour: a weight x n of 1 is an even share."
DECADES = 6
"""A logarithmic histogram reaches so far down from the largest weight; what is less counts in its first bin."""
WIDE = 20
"""Weights of 0 or more whose largest is so many times their median stand in logarithmic bins."""


def weighed(run: Run) -> dict[str, Any]:
    """What is kept of the edge weights of a finished run. Raises ConfigError for a model that gives edges none."""
    found = restore(run)
    with evaluating(found.model):
        weights = found.model.edge_weights()
    recipe, name = run.name.rsplit("-", 2)[0], run.config["model"]["name"]
    if weights is None:
        raise ConfigError(f"{run.folder}: the model {name} gives edges no weights; there is nothing to show of them")
    names = [behavior.name for behavior in found.graph.behaviors]
    values = [own.double().cpu().numpy() for own in weights]
    edges_B = bins(np.concatenate(values))
    sizes = [edges.start_U.diff()[edges.user_E].numpy() for edges in found.graph.edges]
    return {
        "recipe": recipe,
        "seed": run.config["seed"],
        "run": run.name,
        "model": name,
        "behaviors": [
            {"behavior": name, **spread(own), "over_even": over_even(own, size), "histogram": counts(own, edges_B)}
            for name, own, size in zip(names, values, sizes, strict=True)
        ],
        "bins": edges_B.tolist(),
        "data": run.provenance["data"]["digest"],
        "command": f"macrorec weights runs/{run.name}",
    }


def spread(values_E: Floats) -> dict[str, Any]:
    """How many edges, the mean and the deviation of their weights, and ``QUANTILES``; None where there is no edge."""
    if not len(values_E):
        return {"edges": 0, "mean": None, "deviation": None, "quantiles": [None] * len(QUANTILES)}
    quantiles = np.quantile(values_E, QUANTILES).tolist()
    mean, deviation = float(values_E.mean()), float(values_E.std())
    return {"edges": len(values_E), "mean": mean, "deviation": deviation, "quantiles": quantiles}


def over_even(values_E: Floats, size_E: npt.NDArray[np.int64]) -> list[float | None]:
    """The quantiles ``EVEN`` of weight x number of the user's edges by the behaviour: 1 where all of them weigh 1 / n.

    A softmax over a user's edges weighs the few more than the many, whatever was learned; this does not.
    """
    if not len(values_E):
        return [None] * len(EVEN)
    found: list[float | None] = np.quantile(values_E * size_E, EVEN).tolist()
    return found


def bins(values_E: Floats) -> Floats:
    """Borders of ``BINS`` bins, shape (B + 1,), over the weights of all behaviours."""
    if not len(values_E):
        return np.linspace(0, 1, BINS + 1)
    low, high = float(values_E.min()), float(values_E.max())
    if low >= 0 and high > WIDE * float(np.median(values_E)):
        least = max(high / 10**DECADES, float(values_E[values_E > 0].min()))
        return np.geomspace(least, high, BINS + 1)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def counts(values_E: Floats, edges_B: Floats) -> list[int]:
    """Edges in each bin; those below the first border count in the first bin."""
    found: list[int] = np.histogram(np.clip(values_E, edges_B[0], edges_B[-1]), edges_B)[0].tolist()
    return found


def rows(result: Row) -> list[list[Any]]:
    """Head and body of a table: a row per behaviour."""
    head = ["behaviour", "edges", "mean", "deviation", *(_called(share) for share in QUANTILES)]
    head += [f"{_called(share)} x n" for share in EVEN]
    body = [
        [
            own["behavior"],
            own["edges"],
            *map(_shown, (own["mean"], own["deviation"], *own["quantiles"], *own["over_even"])),
        ]
        for own in result["behaviors"]
    ]
    return [head, *body]


def section(results: Sequence[Row]) -> str:
    """A table, a plot and a command for each run."""
    texts = []
    for result in sorted(results, key=lambda row: str(row["recipe"])):
        head, *body = rows(result)
        cells = [[name, f"{n:,}", *numbers] for name, n, *numbers in body]
        texts.append(
            f"### {result['recipe']}\n\n"
            + table(head, cells)
            + f"\nSeed {result['seed']}. {MEANS}\n\n"
            + picture(plot_name(result), f"edge weights of {result['recipe']} by behaviour")
            + "\n"
            + code([result["command"]])
        )
    return "\n".join(texts)


def plot_name(result: Row) -> str:
    """The name of a run's plot."""
    return f"weights-{result['recipe']}"


def _called(share: float) -> str:
    return {0.0: "least", 0.5: "median", 1.0: "largest"}.get(share, f"{share:.0%}")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
