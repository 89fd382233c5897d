"""What is each part of a model worth? Runs of a recipe beside runs that differ in one setting: a table and a plot."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from macrorec.report.cells import Row, changes, code, picture, seeds, spread, table

WHOLE = "the whole"
"""What runs of the recipe as it is are called."""
FEWEST = 2
"""Variants of a recipe from which there is something to compare."""


def studies(runs: Sequence[Row]) -> list[Row]:
    """The recipes that ran as they are and in variants of one setting each, over the same seeds or some of them.

    Each has ``recipe``, ``metric`` (what training watched, if test measures it, or else the first of test) and
    ``values``: what was changed -> seed -> the metric on test; the whole first, then in order of means.
    """
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in runs:
        changed = changes(row)
        if len(changed) < 2:
            groups[row["recipe"]][changed[0] if changed else WHOLE].append(row)
    found: list[Row] = []
    for recipe, own in sorted(groups.items()):
        whole = own.pop(WHOLE, [])
        alike = {change: rows for change, rows in own.items() if set(seeds(rows)) <= set(seeds(whole))}
        if len(alike) < FEWEST:
            continue
        measured, watched = whole[0]["metrics"]["test"], whole[0]["config"].get("train", {}).get("monitor")
        metric = watched if watched in measured else next(iter(measured))
        values = {
            change: {row["seed"]: row["metrics"]["test"][metric] for row in sorted(rows, key=lambda row: row["seed"])}
            for change, rows in {WHOLE: whole, **alike}.items()
        }
        order = sorted(alike, key=lambda change: (statistics.mean(values[change].values()), change))
        values = {change: values[change] for change in (WHOLE, *order)}
        found.append({"recipe": recipe, "metric": metric, "values": values})
    return found


def plot_name(study: Row) -> str:
    """The name of a study's plot."""
    return f"ablation-{study['recipe']}"


def section(found: Sequence[Row]) -> str:
    """A table and a plot of each study; differences are of the seeds that both have."""
    texts = []
    for study in found:
        recipe, metric, whole = study["recipe"], study["metric"], study["values"][WHOLE]
        body = []
        for change, own in study["values"].items():
            difference = statistics.mean(value - whole[seed] for seed, value in own.items())
            told = "" if change == WHOLE else f"{difference:+.4f}"
            body.append([change, spread([*own.values()]), told, ", ".join(map(str, own))])
        texts.append(
            f"### {recipe}\n\n"
            + table(["with", f"{metric} on test", "minus the whole, same seeds", "seeds"], body)
            + "\n"
            + picture(plot_name(study), f"{metric} of {recipe} on test, and with one setting changed")
            + "\n"
            + code([f"macrorec reproduce {recipe} --ablations --seeds {','.join(map(str, whole))}"])
        )
    return "\n".join(texts)
