"""What are a few items of a new user worth? A table and a plot of each study: folding in, retraining, and rules."""

from __future__ import annotations

import re
from collections.abc import Sequence

from macrorec.report.cells import Row, code, picture, table


def plot_name(row: Row) -> str:
    """The name of a study's plot."""
    return re.sub(r"[^\w.=-]+", "-", f"coldstart-{row['recipe']}")


def section(rows: Sequence[Row]) -> str:
    """A table, a plot and a command for each study."""
    texts = []
    for row in sorted(rows, key=plot_name):
        metric, items = row["metric"], [str(h) for h in row["items"]]
        body = [[way, *(_cell(own[metric]) for own in cells)] for way, cells in row["ways"].items()]
        spans = [f"{own['difference']:+.4f} ({own['low']:+.4f} .. {own['high']:+.4f})" for own in row["differences"]]
        body.append(["fold-in minus retrained", *spans])
        users, seeds = ", ".join(f"{n:,}" for n in row["users"]), ", ".join(map(str, row["seeds"]))
        spent = row["seconds"]
        texts.append(
            f"### {row['recipe']}\n\n{users} users, held out of train, give so many of their items; {metric}, seeds "
            f"{seeds}. Behind a difference its 95 % interval, by a paired bootstrap over users.\n\n"
            + table(["items", *items], body)
            + f"\nFitting without them took {spent['fit']:.1f} s; folding in and ranking, for all columns together, "
            f"{spent['fold-in']:.1f} s; retraining {spent['retrained']:.1f} s.\n\n"
            + picture(plot_name(row), f"{metric} by items of new users, {row['recipe']}")
            + "\n"
            + code([row["command"]])
        )
    return "\n".join(texts)


def _cell(found: Row) -> str:
    return f"{found['mean']:.4f}" + ("" if found["deviation"] is None else f" ± {found['deviation']:.4f}")
