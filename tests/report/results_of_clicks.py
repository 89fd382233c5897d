"""Results of clicks, small enough to check by hand."""

from __future__ import annotations

from typing import Any

PLACES = ("all", "warm", "cold user", "user 1-4")


def row(recipe: str, seed: int, auc: float, sets: str = "", **more: Any) -> dict[str, Any]:
    """A record whose values over warm impressions are .1 above those over all; 100 impressions, 60 of them warm."""
    cohorts = [
        {"cohort": place, "impressions": n, "positives": n // 2, "users": n // 10}
        | {"auc": value, "gauc": value, "logloss": 1 - value, "calibration": 0.01}
        for place, n, value in zip(PLACES, (100, 60, 40, 60), (auc, auc + 0.1, None, auc + 0.1), strict=True)
        if value is not None
    ]
    cohorts.insert(2, {"cohort": PLACES[2], "impressions": 40, "positives": 20, "users": 4} | dict.fromkeys(
        ("auc", "gauc", "logloss", "calibration")
    ))  # fmt: skip
    bins = [("width", 1, 0.15, 0.2, 100), ("mass", 0, 0.1, 0.0, 50), ("mass", 1, 0.3, 0.2 * seed, 50)]
    return {
        "recipe": recipe,
        "seed": seed,
        "run": f"{recipe}-{seed}-{len(sets)}",
        "metrics": {"valid": {"auc": auc}, "test": {"auc": auc}},
        "seconds": {"train": 2.0, "epoch": 1.0, "evaluate": 0.1},
        "peak_rss_bytes": 2**20,
        "command": f"macrorec run {recipe} {sets}--seed {seed}",
        "data": "abcdef0123456789",
        "mask": "none",
        "counts": {"users": 10},
        "config": {"model": {"name": recipe.partition("-")[0]}, "train": {"monitor": "auc"}},
        "cohorts": cohorts,
        "reliability": [
            dict(zip(("bins", "bin", "predicted", "positive", "n"), values, strict=True)) for values in bins
        ],
        **more,
    }


def comparison(first: list[dict[str, Any]], second: list[dict[str, Any]], count: str, value: float) -> dict[str, Any]:
    """A comparison of two groups of ``row``."""
    return {
        "count": count,
        "first": {"name": first[0]["recipe"], "runs": [one["run"] for one in first]},
        "second": {"name": second[0]["recipe"], "runs": [one["run"] for one in second]},
        "metrics": [{"metric": "auc", "difference": value, "low": value - 0.01, "high": value + 0.01}],
        "resamples": 10_000,
        "command": f"macrorec reproduce {first[0]['recipe']} --against {second[0]['recipe']}",
    }
