"""Is one group of runs better than another? Runs that differ by their seed count by their mean, with an interval."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from macrorec.errors import ConfigError, DataError
from macrorec.eval.compare import Comparison, compare, compare_auc, mean_per_user
from macrorec.store import Run


def runs_at(places: Sequence[str]) -> list[Run]:
    """The finished runs in the folders ``places``, or in those that match patterns such as ``runs/fm-ml-100k-*``.

    Raises DataError for a place without a finished run.
    """
    found: dict[str, Run] = {}
    for place in places:
        here = [place] if Path(place).is_dir() or not glob.has_magic(place) else sorted(glob.glob(place))  # noqa: PTH207
        if not here:
            raise DataError(f"no folder of a run matches {place!r}")
        found |= {folder: Run.open(folder) for folder in here}
    return list(found.values())


def compare_runs(
    first: Sequence[Run],
    second: Sequence[Run],
    *,
    part: str = "test",
    metrics: Sequence[str] | None = None,
    count: Literal["all", "warm"] = "all",
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """What is kept of a comparison: per metric the means of both groups, their difference and its interval.

    Metrics are by default all per-user ones that the runs share, and ``auc`` where all kept their impressions.
    ``count="warm"`` compares AUC over warm impressions. Raises DataError for runs of different data.
    """
    runs = [*first, *second]
    samples = [run.samples(part) for run in runs]
    kept = [frame for frame in samples if frame is not None]
    has_auc = len(kept) == len(runs)
    wanted = list(metrics) if metrics else None
    if "auc" in (wanted or ()) and not has_auc:
        lacking = next(run for run, frame in zip(runs, samples, strict=True) if frame is None)
        raise ConfigError(f"{lacking.folder} keeps no impressions of the part {part!r}: it cannot be compared by auc")
    if count == "warm" and not has_auc:
        raise ConfigError("only clicks have warm impressions, and a run keeps none; compare all")
    found: list[Comparison] = []
    if has_auc and (wanted is None or "auc" in wanted):
        n = len(first)
        found.append(compare_auc(kept[:n], kept[n:], count=count, n_bootstrap=resamples, seed=seed))
    others = None if wanted is None else [name for name in wanted if name != "auc"]
    if count == "all" and others != []:
        of_first, of_second = (mean_per_user([run.per_user(part) for run in group]) for group in (first, second))
        found += compare(of_first, of_second, others, n_bootstrap=resamples, seed=seed)
    elif others:
        raise ConfigError(f"only auc can be compared over warm impressions, not {', '.join(others)}")
    return {
        "part": part,
        "count": count,
        "metrics": [asdict(comparison) for comparison in found],
        "first": told(first),
        "second": told(second),
        "resamples": resamples,
        "data": runs[0].provenance["data"]["digest"],
    }


def told(runs: Sequence[Run]) -> dict[str, Any]:
    """A group of runs: the recipe that their folders are named after, and the folders' names."""
    recipes = sorted({run.name.rsplit("-", 2)[0] for run in runs})
    return {"name": ", ".join(recipes), "runs": [run.name for run in runs]}


def same_data(runs: Sequence[Run]) -> bool:
    """Whether all runs were made on the same data and split."""
    return len({run.provenance["data"]["digest"] for run in runs}) == 1
