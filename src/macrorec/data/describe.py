"""What is in a log? Counts, density, times, degrees, and how its behaviours overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.data.log import Interactions, n_common

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}


def describe(log: Interactions) -> dict[str, Any]:
    """Plain values that describe ``log``.

    ``rows users items``; ``pairs`` and ``density``: distinct target (user, item) pairs, and their share of users x
    items; ``behaviors``: per behaviour its schema, rows, pairs, users, items, and ``funnel``: the share of target pairs
    that also have it; ``time``: first, last, number of distinct times; ``weight`` and ``label``: min, mean, max;
    ``degrees``: quantiles of the number of distinct partners in the target behaviour over all users and all items.
    ``time``, ``weight`` and ``label`` are None where the log has none.
    """
    n_users, n_items = len(log.users), len(log.items)
    pairs = [log.take(log.behavior == number).pairs() for number in range(len(log.behaviors))]
    target = pairs[log.target]
    return {
        "rows": len(log),
        "users": n_users,
        "items": n_items,
        "pairs": len(target),
        "density": _share(len(target), n_users * n_items),
        "behaviors": [
            {
                "name": behavior.name,
                "role": behavior.role,
                "weight": behavior.weight,
                "mask": behavior.mask,
                "rows": int((log.behavior == number).sum()),
                "pairs": len(own),
                "users": _n_present(own // max(n_items, 1)),
                "items": _n_present(own % max(n_items, 1)),
                "funnel": _share(n_common(own, target), len(target)),
            }
            for number, (behavior, own) in enumerate(zip(log.behaviors, pairs, strict=True))
        ],
        "time": None if log.time is None or not len(log) else _time(log.time),
        "weight": _spread(log.weight),
        "label": _spread(log.label),
        "degrees": {
            "user": _quantiles(np.bincount(target // max(n_items, 1), minlength=n_users)),
            "item": _quantiles(np.bincount(target % max(n_items, 1), minlength=n_items)),
        },
    }


def table(description: dict[str, Any]) -> str:
    """``describe``'s result as text for a terminal."""
    d = description
    lines = [
        f"{d['rows']:,} rows, {d['users']:,} users, {d['items']:,} items",
        f"{d['pairs']:,} distinct target pairs, density {100 * d['density']:.4f} %",
    ]
    if d["time"]:
        lines.append(f"times {d['time']['first']} to {d['time']['last']}, {d['time']['distinct']:,} distinct")
    lines += [
        f"{name} {d[name]['min']:g} to {d[name]['max']:g}, mean {d[name]['mean']:.4g}"
        for name in ("weight", "label")
        if d[name]
    ]
    header = ("behaviour", "role", "weight", "mask", "rows", "pairs", "users", "items", "of target pairs")
    cells = [
        (
            b["name"],
            b["role"],
            f"{b['weight']:g}",
            "yes" if b["mask"] else "no",
            *(f"{b[column]:,}" for column in ("rows", "pairs", "users", "items")),
            f"{100 * b['funnel']:.1f} %",
        )
        for b in d["behaviors"]
    ]
    lines += ["", *_aligned([header, *cells], text_columns=2)]
    degrees = [
        (f"{side}s", f"{values['mean']:.1f}", *(f"{values[name]:,}" for name in QUANTILES))
        for side, values in d["degrees"].items()
    ]
    lines += ["", *_aligned([("target partners of", "mean", *QUANTILES), *degrees], text_columns=1)]
    return "\n".join(lines)


def _aligned(rows: list[tuple[str, ...]], text_columns: int) -> list[str]:
    """Rows as lines with columns of equal width; the first ``text_columns`` to the left, the others to the right."""
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width[n]) if n < text_columns else cell.rjust(width[n]) for n, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


def _n_present(numbers: npt.NDArray[np.int64]) -> int:
    return int(np.count_nonzero(np.bincount(numbers)))


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0


def _time(time: npt.NDArray[np.int64]) -> dict[str, int]:
    return {"first": int(time.min()), "last": int(time.max()), "distinct": pl.Series(time).n_unique()}


def _spread(values: npt.NDArray[np.float32] | None) -> dict[str, float] | None:
    if values is None or not len(values):
        return None
    return {"min": float(values.min()), "mean": float(values.mean(dtype=np.float64)), "max": float(values.max())}


def _quantiles(degrees: npt.NDArray[np.int64]) -> dict[str, float]:
    """Observed values at ``QUANTILES`` (the least that at least this share does not exceed), and the mean."""
    if not len(degrees):
        return {**dict.fromkeys(QUANTILES, 0), "mean": 0.0}
    values = np.quantile(degrees, list(QUANTILES.values()), method="inverted_cdf")
    return {**{name: int(v) for name, v in zip(QUANTILES, values, strict=True)}, "mean": float(degrees.mean())}
