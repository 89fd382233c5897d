"""Whom do models serve, and with which items? The first metric of a data set by train degree, as two tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from macrorec.report.cells import Row, table

SIDES = {
    "user": "by train degree of users",
    "item": "by train degree of held-out items, where only those of a range count as relevant",
}
COUNTED = ("users", "relevant")

Runs = list[dict[str, Row]]
"""Per run of a label its row of each range."""


def tables(groups: Mapping[str, Sequence[Row]], metrics: Sequence[str]) -> str:
    """A table of users and one of items; nothing where no run keeps its metrics by degree."""
    told = {own: [row for row in rows if "degrees" in row] for own, rows in groups.items()}
    known = {own: rows for own, rows in told.items() if rows}
    if not known or not metrics:
        return ""
    return "".join(
        f"{metrics[0]} {says}, mean over seeds:\n\n{_table(_of(known, side), metrics[0])}\n"
        for side, says in SIDES.items()
    )


def _of(groups: Mapping[str, Sequence[Row]], side: str) -> dict[str, Runs]:
    """The rows of one side, by label, run and range."""
    return {
        label: [{row["degree"]: row for row in run["degrees"] if row["side"] == side} for run in runs]
        for label, runs in groups.items()
    }


def _table(groups: Mapping[str, Runs], metric: str) -> str:
    """A column per range: how many users and held-out items it has, then the metric of each label."""
    every = [run for runs in groups.values() for run in runs]
    names = sorted({name for run in every for name in run}, key=_low)
    body = [[f"*{key}*", *(_sizes(every, name, key) for name in names)] for key in COUNTED]
    body += [[label, *(_mean(runs, name, metric) for name in names)] for label, runs in groups.items()]
    return table(["recipe", *names], body)


def _low(name: str) -> int:
    """The least degree of a range such as "5-9" or "100+"."""
    return int(name.rstrip("+").partition("-")[0])


def _sizes(runs: Runs, name: str, key: str) -> str:
    """How many a range has; several numbers where runs were cut differently."""
    return ", ".join(f"{size:,}" for size in sorted({run[name][key] for run in runs if name in run}))


def _mean(runs: Runs, name: str, metric: str) -> str:
    """The mean over the runs that can tell."""
    values = [run[name][metric] for run in runs if name in run and run[name].get(metric) is not None]
    return f"{statistics.mean(values):.4f}" if values else ""
