"""How well do models rank? Per data set: metrics, what was published, differences; three ways where items were met.

A run on a log with auxiliary behaviours has metrics of cohorts, such as ``hr@10:discovery``. Where both cohorts have
users, the first metrics stand in three columns each: over all held-out items, re-engagement, discovery. A run that
keeps its metrics by train degree has the first of them in a table of users, and in one of held-out items.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from macrorec.eval.metrics import COHORTS
from macrorec.report import degrees
from macrorec.report.cells import Row, by_label, code, model, reproducing, seeds, speaks_of, spread, table, tied

FIRST = 2
"""Metrics of a run that stand in three columns; the others stand in a table of their own, over all held-out items."""

Groups = Mapping[str, Sequence[Row]]


def section(name: str, runs: Sequence[Row], published: Sequence[Row], comparisons: Sequence[Row]) -> str:
    """The tables of one data set."""
    text, groups, metrics = f"## {name}\n\n", by_label(runs), metrics_of(runs)
    if not runs:
        return text + beside(runs, published)
    whole = [metric for metric in metrics if ":" not in metric]
    if len({metric.partition(":")[2] for metric in metrics}) <= len(COHORTS):
        commands = {row["command"] for row in runs}
        text += _plain(groups, whole) + _protocol(runs) + degrees.tables(groups, whole)
        return text + beside(runs, published) + code(sorted(commands))
    text += _said(runs) + _three_ways(groups, whole[:FIRST], published) + _deeper(groups, whole[FIRST:])
    text += _differences(groups, whole[:FIRST], comparisons) + _protocol(runs) + degrees.tables(groups, whole)
    return text + beside(runs, published) + code(sorted(_commands(groups, comparisons)))


def beside(runs: Sequence[Row], published: Sequence[Row]) -> str:
    """Published values beside ours, then those of models that we have no result of."""
    text, compared = "", _compared(by_label(runs), published)
    if compared:
        text += table(["recipe", "metric", "ours", "published", "gap", "source"], compared) + "\n"
    names = {model(row) for row in runs}
    others = [row for row in published if row["model"].lower() not in names]
    return text + (_published(others) + "\n" if others else "")


def metrics_of(runs: Sequence[Row]) -> list[str]:
    """What any of ``runs`` measured on test."""
    return list(dict.fromkeys(metric for row in runs for metric in row["metrics"]["test"]))


# --- tables ----------------------------------------------------------------------------------------------------------


def _plain(groups: Groups, metrics: Sequence[str]) -> str:
    """A column per metric."""
    body = [[own, *(_spread(rows, metric) for metric in metrics), *_cost(rows)] for own, rows in groups.items()]
    return table(["recipe", *metrics, "seeds", "train s", "peak MiB"], body) + "\n"


def _said(runs: Sequence[Row]) -> str:
    """What the columns of a table of three ways mean, and how many users each speaks of."""
    told = []
    for cohort, says in COHORTS.items():
        sizes = sorted({row["counts"][f"users:{cohort}"] for row in runs if f"users:{cohort}" in row["counts"]})
        told.append(f"*{cohort}* ({', '.join(f'{size:,}' for size in sizes)} users): {says}.")
    return "\n".join(["Metrics over all held-out items, then over those of each cohort.", *told]) + "\n\n"


def _three_ways(groups: Groups, metrics: Sequence[str], published: Sequence[Row]) -> str:
    """Three columns per metric, and what was published of the model."""
    ways = _ways(metrics)
    body = [
        [own, *(_spread(rows, way) for way in ways), _known(rows, metrics, published), *_cost(rows)]
        for own, rows in groups.items()
    ]
    head = [*_heads(ways), f"published {' / '.join(metrics)}", "seeds", "train s", "peak MiB"]
    return table(["recipe", *head], body) + "\n"


def _deeper(groups: Groups, metrics: Sequence[str]) -> str:
    """The metrics that have no three columns."""
    if not metrics:
        return ""
    body = [[own, *(_spread(rows, metric) for metric in metrics)] for own, rows in groups.items()]
    return f"Over all held-out items:\n\n{table(['recipe', *metrics], body)}\n"


def _differences(groups: Groups, metrics: Sequence[str], comparisons: Sequence[Row]) -> str:
    """How far each label is above another, with the interval, three columns per metric."""
    shown = [(own, row) for own, rows in groups.items() for row in comparisons if tied(row, [rows])]
    if not shown:
        return ""
    ways, body = _ways(metrics), []
    for own, row in shown:
        found = {entry["metric"]: entry for entry in row["metrics"]}
        spans = [
            f"{entry['difference']:+.4f} ({entry['low']:+.4f} .. {entry['high']:+.4f})" if entry else ""
            for entry in map(found.get, ways)
        ]
        body.append([own, str(row["second"]["name"]), *spans])
    resamples = ", ".join(sorted({f"{row['resamples']:,}" for _, row in shown}))
    return (
        "Differences of means over seeds; behind them the 95 % interval of a paired bootstrap over users, "
        f"{resamples} resamples, with the seeds as they are.\n\n{table(['recipe', 'minus', *_heads(ways)], body)}\n"
    )


def _protocol(runs: Sequence[Row]) -> str:
    lines = []
    for mask in sorted({str(row["mask"]) for row in runs}):
        own = [row for row in runs if str(row["mask"]) == mask]
        users = ", ".join(sorted({f"{row['counts'].get('users', 0):,}" for row in own}))
        data = ", ".join(sorted({f"`{row['data'][:12]}`" for row in own}))
        lines.append(f"{users} users in test; {mask}; data {data}.")
    return "\n".join(lines) + "\n\n"


def _compared(groups: Groups, published: Sequence[Row]) -> list[list[str]]:
    """Each published value beside each of our recipes, and variants of it, that measured the same of the same model."""
    result = []
    for known in published:
        for own, rows in groups.items():
            values = [r["metrics"]["test"][known["metric"]] for r in rows if known["metric"] in r["metrics"]["test"]]
            if values and speaks_of(known, rows[0]):
                ours = statistics.mean(values)
                gap = f"{ours - known['value']:+.4f}"
                result.append([own, known["metric"], f"{ours:.4f}", f"{known['value']:.4f}", gap, known["source"]])
    return result


def _published(rows: Sequence[Row]) -> str:
    """What was published of models that we have no result of: a row per model and source."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        values[row["model"], row["source"]][row["metric"]] = row["value"]
    body = [
        [name, *(f"{own[metric]:.4f}" if metric in own else "" for metric in metrics), source]
        for (name, source), own in values.items()
    ]
    return table(["published", *metrics, "source"], body)


# --- cells -----------------------------------------------------------------------------------------------------------


def _ways(metrics: Sequence[str]) -> list[str]:
    return [name for metric in metrics for name in (metric, *(f"{metric}:{cohort}" for cohort in COHORTS))]


def _heads(ways: Sequence[str]) -> list[str]:
    return [way.partition(":")[2] or way for way in ways]


def _spread(rows: Sequence[Row], metric: str) -> str:
    return spread([row["metrics"]["test"][metric] for row in rows if metric in row["metrics"]["test"]])


def _cost(rows: Sequence[Row]) -> list[str]:
    seconds = statistics.mean(row["seconds"]["train"] for row in rows)
    peak = max(row["peak_rss_bytes"] for row in rows) / 2**20
    return [", ".join(map(str, seeds(rows))), f"{seconds:.1f}", f"{peak:,.0f}"]


def _known(rows: Sequence[Row], metrics: Sequence[str], published: Sequence[Row]) -> str:
    """What was published of the model: ``0.0411 / 0.0240``."""
    own = {row["metric"]: row["value"] for row in published if speaks_of(row, rows[0])}
    return " / ".join(f"{own[metric]:.4f}" for metric in metrics if metric in own)


def _commands(groups: Groups, comparisons: Sequence[Row]) -> set[str]:
    """One command per row of the tables: the one that made its differences, too, if there are any."""
    found: set[str] = set()
    for rows in groups.values():
        found |= {row["command"] for row in comparisons if tied(row, [rows])} or {reproducing(rows)}
    return found
