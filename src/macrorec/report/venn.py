"""What do the regions of a user's items look like? A Venn diagram of two or three behaviours, else bars; as SVG.

The darker a region, the larger the mean weight of its edges (Fig. 8 of SWGCN), or, where a model gives edges no
weight, the more events there are per item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.report import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]
Colour = Callable[[float | None], Any]

CENTRES: Mapping[int, Floats] = {
    2: np.array([(-0.6, 0.0), (0.6, 0.0)]),
    3: np.array([(-0.6, 0.35), (0.6, 0.35), (0.0, -0.7)]),
}
"""Of circles of radius 1, by how many there are."""
LEVELS = 8
"""Colours of the heat scale."""
UNKNOWN, EMPTY = "0.85", "white"
"""Colours of a region without a weight, and without an item."""
NARROW = 28
"""Characters of a behaviour's name."""


def drawn(regions: pl.DataFrame, names: Sequence[str], title: str) -> str:
    """The diagram of ``Recommender.regions`` over the behaviours ``names``."""
    rows = regions.to_dicts()
    weighs = any(row["weight"] is not None for row in rows)
    heat = [row["weight"] if weighs else sum(row["events"]) / row["items"] for row in rows]
    found = {
        tuple(names.index(name) for name in row["behaviors"]): (row["items"], value)
        for row, value in zip(rows, heat, strict=True)
    }
    with plots.drawn("items", "") as (axes, text):
        axes.set_title(plots.verbatim(title))
        colour = _scale(axes, heat, "mean edge weight" if weighs else "events per item")
        if len(names) in CENTRES:
            _circles(axes, found, names, colour)
        else:
            _bars(axes, found, names, colour)
    return text[0]


def _scale(axes: Axes, heat: Sequence[float | None], label: str) -> Colour:
    """Draw the heat scale, and answer what gives each value its colour."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = [value for value in heat if value is not None]
    shades = matplotlib.colormaps["YlOrBr"].resampled(LEVELS)
    norm = Normalize(0.0, (max(known) if known else 0.0) or 1.0)
    axes.figure.colorbar(ScalarMappable(norm, shades), ax=axes, label=label, shrink=0.8)
    return lambda value: UNKNOWN if value is None else shades(norm(value))


def _circles(
    axes: Axes, found: Mapping[tuple[int, ...], tuple[int, float | None]], names: Sequence[str], colour: Colour
) -> None:
    """Regions as painters lay them: circles, over them what two share, over that what three share."""
    centres = CENTRES[len(names)]
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for size in range(1, len(names) + 1):
        for own in combinations(range(len(names)), size):
            n_items, value = found.get(own, (0, None))
            shade = colour(value) if n_items else EMPTY
            axes.fill(*outline(centres[list(own)], ring).T, facecolor=shade, edgecolor="none")
            told = f"{n_items}" + (f"\n{value:.3g}" if value is not None else "")
            axes.annotate(told, label_place(centres, own), ha="center", va="center", bbox=_behind())
    for centre, name in zip(centres, names, strict=True):
        axes.plot(*(centre + ring[[*range(len(ring)), 0]]).T, color="0.3", linewidth=1)
        below = centre[1] < 0
        place = (centre[0], centre[1] + (-1.06 if below else 1.06))
        axes.annotate(_short(name), place, ha="center", va="top" if below else "bottom", fontweight="bold")
    axes.set_aspect("equal")
    axes.margins(0.12)
    axes.set_axis_off()


def outline(centres: Floats, ring: Floats) -> Floats:
    """The border (P, 2) of what the circles of radius 1 around ``centres`` (C, 2) share, in order of angle."""
    border = (centres[:, None] + ring).reshape(-1, 2)
    inside = (np.linalg.norm(border[:, None] - centres, axis=2) <= 1 + 1e-9).all(1)
    kept: Floats = border[inside]
    x, y = (kept - centres.mean(0)).T
    return kept[np.argsort(np.arctan2(y, x))]


def label_place(centres: Floats, own: Sequence[int]) -> tuple[float, float]:
    """The point of the region inside the circles ``own`` alone that is farthest from every circle's line."""
    steps = np.linspace(-2, 2, 81)
    points = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    depth = 1 - np.linalg.norm(points[:, None] - centres, axis=2)
    depth[:, [number for number in range(len(centres)) if number not in own]] *= -1
    x, y = points[depth.min(1).argmax()]
    return float(x), float(y)


def _bars(
    axes: Axes, found: Mapping[tuple[int, ...], tuple[int, float | None]], names: Sequence[str], colour: Colour
) -> None:
    """A bar per region, the longest on top, named by its behaviours; a dot stands for each behaviour in it."""
    order = sorted(found, key=lambda own: (found[own][0], [-number for number in own]))
    longest = max(n_items for n_items, _ in found.values())
    for place, own in enumerate(order):
        n_items, value = found[own]
        axes.barh(place, n_items, color=colour(value), edgecolor="0.3", linewidth=0.5)
        axes.annotate(f" {n_items}" + (f" ({value:.3g})" if value is not None else ""), (n_items, place), va="center")
    width = longest * 0.06
    for number in range(len(names)):
        x = (number - len(names)) * width
        filled = ["0.2" if number in own else "0.9" for own in order]
        axes.scatter([x] * len(order), range(len(order)), c=filled, s=30, zorder=3)
        axes.annotate(
            _short(names[number]), (x, len(order) - 0.4), rotation=60, ha="left", va="bottom", annotation_clip=False
        )
    axes.set_xlim(-(len(names) + 0.7) * width, longest * 1.2)
    axes.set_yticks([])
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= longest and tick == int(tick)])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)


def _behind() -> dict[str, Any]:
    """A pale box behind a label, so that it can be read on every shade."""
    return {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}


def _short(name: str) -> str:
    return plots.verbatim(name if len(name) <= NARROW else f"{name[: NARROW - 3]}...")
