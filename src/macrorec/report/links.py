"""How well do models tell edges from non-edges? Per data set: direct scores, both probes, and what was published.

Published tables seldom say which of the three they hold, so each stands beside all.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from macrorec.eval.links import PROBES
from macrorec.report.cells import Row, by_label, code, model, reproducing, seeds, speaks_of, spread, table

METRICS = ("auc_roc", "auc_pr")
"""Metrics of each reading, and of published tables."""
READINGS = ("", *(f"_{features}" for features in PROBES))
"""What follows a metric's name: nothing for direct scores, or the features of a probe."""

Groups = Mapping[str, Sequence[Row]]


def section(name: str, runs: Sequence[Row], published: Sequence[Row]) -> str:
    """The tables of one data set."""
    text, groups = f"## {name}: links\n\n", by_label(runs)
    if runs:
        text += (
            "Areas under the curves of true against false positives and of precision against recall, by direct scores, "
            "and by logistic regression (C = 0.001) on u * v and on [u; v], fitted to pairs of train. Models without "
            f"vectors have direct scores only. Rules that nothing was learned for stand among the rest.\n\n"
            f"{measured(groups)}\n{protocol(runs)}\n"
        )
    compared = beside(groups, published)
    if compared:
        text += f"Ours minus published, by each reading:\n\n{compared}\n"
    names = {model(row) for row in runs}
    others = [row for row in published if row["model"].lower() not in names]
    if others:
        text += alone(others) + "\n"
    return text + (code(sorted(reproducing(rows) for rows in groups.values())) if runs else "")


def measured(groups: Groups) -> str:
    """A row per label: every metric by every reading."""
    body = []
    for own, rows in groups.items():
        values = [_spread(rows, metric + reading) for reading in READINGS for metric in METRICS]
        seconds = statistics.mean(row["seconds"]["train"] for row in rows)
        peak = max(row["peak_rss_bytes"] for row in rows) / 2**20
        body.append([own, *values, ", ".join(map(str, seeds(rows))), f"{seconds:.1f}", f"{peak:,.0f}"])
    head = [metric + reading.replace("_", ", ") for reading in READINGS for metric in METRICS]
    return table(["recipe", *head, "seeds", "train s", "peak MiB"], body)


def protocol(runs: Sequence[Row]) -> str:
    """What was measured on: runs with equal pairs share a line."""
    lines: dict[tuple[str, int, int, str, str], None] = {}
    for row in runs:
        counts, pairs = row["counts"], row.get("pairs", {}).get("test", "")
        lines[row["mask"], counts["pairs"], counts["positives"], pairs, row["data"]] = None
    return "".join(
        f"{n:,} pairs of test, {edges:,} of them edges, pairs `{pairs[:12]}`; {mask}; data `{data[:12]}`.\n"
        for mask, n, edges, pairs, data in sorted(lines)
    )


def beside(groups: Groups, published: Sequence[Row]) -> str:
    """A row per published value of a model that we have, with the gap of each reading."""
    body = []
    for known in published:
        for own, rows in groups.items():
            if not speaks_of(known, rows[0]):
                continue
            gaps = [_gap(rows, known["metric"] + reading, known["value"]) for reading in READINGS]
            body.append([own, known["metric"], f"{known['value']:.4f}", *gaps, known["source"]])
    head = ["recipe", "metric", "published", "direct", *PROBES, "source"]
    return table(head, body) if body else ""


def alone(published: Sequence[Row]) -> str:
    """What was published of models that we have no result of."""
    names = dict.fromkeys((row["model"], row["source"]) for row in published)
    values = {(row["model"], row["source"], row["metric"]): f"{row['value']:.4f}" for row in published}
    body = [[name, *(values.get((name, source, metric), "") for metric in METRICS), source] for name, source in names]
    return table(["published", *METRICS, "source"], body)


def _spread(rows: Sequence[Row], metric: str) -> str:
    return spread(_values(rows, metric))


def _gap(rows: Sequence[Row], metric: str, value: float) -> str:
    found = _values(rows, metric)
    return f"{statistics.mean(found) - value:+.4f}" if found else ""


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    return [row["metrics"]["test"][metric] for row in rows if metric in row["metrics"]["test"]]
