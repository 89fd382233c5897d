"""How well do rankers predict clicks? Per data set: metrics of all and of warm impressions, cohorts, variants.

A run of clicks has ``cohorts`` and ``reliability``, made from its impressions; a comparison on file ties two groups of
runs together by the names of their folders.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from macrorec.report.cells import (
    Row,
    by_label,
    changes,
    code,
    picture,
    reproducing,
    searched,
    seeds,
    short,
    spread,
    table,
    tied,
)

METRICS = ("auc", "gauc", "logloss", "calibration")
"""Columns of a table, and of a breakdown."""
COUNTED = {
    "all": "All impressions",
    "warm": "Warm impressions, whose user and item have positive history: those that the paper keeps",
}


def section(name: str, runs: Sequence[Row], comparisons: Sequence[Row], searches: Sequence[Row]) -> str:
    """The tables of one data set: models, then variants of models, over all and over warm impressions; cohorts."""
    text = f"## {name}: clicks\n\n"
    if not runs:
        return text
    groups = by_label(runs)
    models = models_of(groups)
    variants = {label: rows for label, rows in groups.items() if changes(rows[0])}
    trials = {row["recipe"]: searched(row) for row in searches}
    for own, title in ((models, "{}"), (variants, "Variants. {}")):
        for count, words in COUNTED.items():
            if own:
                text += f"{title.format(words)}{share(own, count)}.\n\n{measured(own, count, comparisons, trials)}\n"
    shown = [row for row in comparisons if tied(row, groups.values())]
    if shown:
        resamples = ", ".join(sorted({f"{row['resamples']:,}" for row in shown}))
        text += (
            "A difference is the mean AUC over seeds minus that of the other; behind it the 95 % interval of a paired "
            f"bootstrap over users, {resamples} resamples, with the seeds as they are.\n\n"
        )
    text += "AUC by length of history, mean over seeds:\n\n" + cohorts(models or variants) + "\n"
    return text + picture(f"reliability-{name}", f"reliability of {name}") + "\n"


def commands(runs: Sequence[Row], comparisons: Sequence[Row]) -> str:
    """One command per row of the tables: the one that made its intervals, too, if there are any."""
    found: set[str] = set()
    for rows in by_label(runs).values():
        found |= {row["command"] for row in comparisons if tied(row, [rows])} or {reproducing(rows)}
    return code(sorted(found))


def models_of(groups: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    """The recipes as they are, without the variants that set something."""
    return {label: rows for label, rows in groups.items() if not changes(rows[0])}


def measured(groups: Mapping[str, Sequence[Row]], count: str, comparisons: Sequence[Row], trials: Row) -> str:
    """A row per label: metrics over the impressions of ``count``, differences, and what was spent."""
    related = {label: differences(rows, count, comparisons) for label, rows in groups.items()}
    others = sorted({other for own in related.values() for other in own})
    body = []
    for label, rows in groups.items():
        known = [cohort(row, count) for row in rows]
        values = [spread([own[metric] for own in known if own[metric] is not None]) for metric in METRICS]
        budget = str(trials.get(rows[0]["recipe"], "")) if not changes(rows[0]) else ""
        seconds = statistics.mean(row["seconds"]["train"] for row in rows)
        own = [related[label].get(other, "") for other in others]
        body.append([label, *values, *own, ", ".join(map(str, seeds(rows))), budget, f"{seconds:.1f}"])
    against = [f"auc minus {other}" for other in others]
    return table(["recipe", *METRICS, *against, "seeds", "search", "train s"], body)


def differences(rows: Sequence[Row], count: str, comparisons: Sequence[Row]) -> dict[str, str]:
    """``-0.0123 (-0.0150 .. -0.0098)`` by what the runs were compared with."""
    return {
        str(row["second"]["name"]): f"{found['difference']:+.4f} ({found['low']:+.4f} .. {found['high']:+.4f})"
        for row in comparisons
        if row["count"] == count and tied(row, [rows])
        for found in row["metrics"]
        if found["metric"] == "auc"
    }


def cohort(row: Row, name: str) -> Row:
    """One cohort of a run's breakdown."""
    return next((own for own in row["cohorts"] if own["cohort"] == name), dict.fromkeys(METRICS))


def share(groups: Mapping[str, Sequence[Row]], count: str) -> str:
    """How many impressions count."""
    rows = [row for own in groups.values() for row in own]
    sizes = sorted({cohort(row, count).get("impressions") or 0 for row in rows})
    whole = sorted({cohort(row, "all")["impressions"] for row in rows})
    told, of = (", ".join(f"{size:,}" for size in some) for some in (sizes, whole))
    return f" ({told})" if count == "all" else f" ({told} of {of})"


def cohorts(groups: Mapping[str, Sequence[Row]]) -> str:
    """A row per cohort: its size, and the AUC of each label."""
    first = next(iter(groups.values()))[0]
    body = []
    for own in first["cohorts"]:
        known = [[cohort(row, own["cohort"])["auc"] for row in rows] for rows in groups.values()]
        means = ["" if None in values else f"{statistics.mean(values):.4f}" for values in known]
        body.append([own["cohort"], *(short(own[key]) for key in ("impressions", "positives", "users")), *means])
    return table(["cohort", "impressions", "positives", "users", *groups], body)
