"""Where do items lie? A map in two dimensions of how strongly they belong to clusters, coloured by the strongest; SVG.

Shape letters: N items, K clusters.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from macrorec.errors import ConfigError, DataError
from macrorec.report import plots

Floats = npt.NDArray[np.floating[Any]]
Projection = Literal["pca", "tsne"]

MOST = 5000
"""Items drawn; of more, so many by the seed."""
NAMED = 12
"""Clusters that the legend names, the largest; a colour and a mark tells the others apart, too."""
PERPLEXITY = 30
"""Of t-SNE, as scikit-learn has it; less where there are few items."""


def drawn(strength_NK: Floats, group_N: npt.NDArray[Any], projection: Projection, *, seed: int) -> str:
    """The map of the items that have a cluster. Raises DataError where fewer than three have one."""
    import matplotlib

    rows = chosen(group_N, seed)
    group, places = group_N[rows], projected(strength_NK[rows], projection, seed=seed)
    sizes = np.bincount(group)
    order = [int(k) for k in np.argsort(-sizes, kind="stable") if sizes[k]]
    shades = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    looks = itertools.cycle(itertools.product(plots.MARKS, shades))
    names = {"pca": ("first principal component", "second"), "tsne": ("t-SNE", "")}[projection]
    with plots.drawn(*names) as (axes, text):
        for place, (k, (mark, shade)) in enumerate(zip(order, looks, strict=False)):
            x, y = places[group == k].T
            label = f"{k} ({sizes[k]:,})" if place < NAMED else None
            axes.scatter(x, y, s=8, color=[shade], marker=mark, linewidths=0, alpha=0.8, label=label)
        rest = len(order) - NAMED
        title = "cluster (items)" + (f"; {rest} more" if rest > 0 else "")
        axes.legend(title=title, fontsize=7, title_fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
        if len(rows) < np.count_nonzero(group_N >= 0):
            axes.set_title(f"{len(rows):,} of {np.count_nonzero(group_N >= 0):,} items", fontsize=8)
    return text[0]


def chosen(group_N: npt.NDArray[Any], seed: int) -> npt.NDArray[np.int64]:
    """The items to draw, ascending: those with a cluster, ``MOST`` of them at most."""
    rows = np.flatnonzero(group_N >= 0)
    if len(rows) < 3:
        raise DataError(f"{len(rows)} items have a cluster: there is no map to draw of fewer than 3")
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    return rows


def projected(strength_NK: Floats, projection: str, *, seed: int) -> npt.NDArray[np.float64]:
    """Places (N, 2) by scikit-learn: principal components, or t-SNE begun from them. Raises ConfigError for another."""
    from threadpoolctl import threadpool_limits

    if projection not in get_args(Projection):
        raise ConfigError(f"projection is {projection!r}; allowed are {', '.join(get_args(Projection))}")
    x_NK = strength_NK.astype(np.float64) - strength_NK.mean(0, dtype=np.float64)
    if x_NK.shape[1] < 2:
        x_NK = np.pad(x_NK, ((0, 0), (0, 2 - x_NK.shape[1])))
    if not x_NK.any():
        return np.zeros((len(x_NK), 2))
    with threadpool_limits(1):
        if projection == "pca":
            from sklearn.decomposition import PCA

            found = PCA(2, svd_solver="full").fit_transform(x_NK)
        else:
            from sklearn.manifold import TSNE

            perplexity = min(PERPLEXITY, (len(x_NK) - 1) / 3)
            found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(x_NK)
    return np.asarray(found, dtype=np.float64)
