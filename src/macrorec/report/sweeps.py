"""What does one setting do? Runs over its values and several seeds, summed up, as a table and as a plot."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from macrorec.report.cells import Row, code, picture, table
from macrorec.report.rankings import FIRST


def summed(recipe: str, key: str, runs: Sequence[tuple[Any, Row]], command: str) -> dict[str, Any]:
    """What is kept of a sweep: ``runs`` are (value of the setting, record of the run), the seeds of a value together.

    Per value and part the mean and the deviation of each metric over seeds; the deviation of one seed is None. The
    metric of the plot is the one that training monitors, else the first.
    """
    first = runs[0][1]
    entries = []
    for value in dict.fromkeys(value for value, _ in runs):
        own = [row for of, row in runs if of == value]
        parts = {part: _spreads([row["metrics"][part] for row in own]) for part in ("valid", "test")}
        entries.append({"value": value, **parts, "runs": [row["run"] for row in own]})
    metric = first["config"]["train"]["monitor"] or next(iter(first["metrics"]["test"] or first["metrics"]["valid"]))
    kept = ("data", "machine", "versions", "commit")
    return {
        "recipe": recipe,
        "key": key,
        "metric": metric,
        "seeds": sorted({row["seed"] for _, row in runs}),
        "values": entries,
        "command": command,
        **{name: first[name] for name in kept},
    }


def _spreads(measured: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    return {
        name: {"mean": statistics.mean(own), "deviation": statistics.stdev(own) if len(own) > 1 else None}
        for name in dict.fromkeys(name for row in measured for name in row)
        if (own := [row[name] for row in measured if name in row])
    }


def file_name(recipe: str, key: str) -> str:
    """The name of a sweep's file and plot, without its ending."""
    return re.sub(r"[^\w.]+", "-", f"{recipe}-{key}")


def section(sweeps: Sequence[Row]) -> str:
    """A table, a plot and a command for each sweep."""
    texts = []
    for row in sorted(sweeps, key=lambda row: file_name(row["recipe"], row["key"])):
        first = row["values"][0]
        metrics = [("valid", row["metric"])] * bool(first["valid"]) + [("test", name) for name in _told(first["test"])]
        body = [
            [str(entry["value"]), *(_cell(entry[part].get(name)) for part, name in metrics)] for entry in row["values"]
        ]
        seeds = ", ".join(map(str, row["seeds"]))
        name = file_name(row["recipe"], row["key"])
        texts.append(
            f"### {row['recipe']}: {row['key']}\n\n"
            + table([row["key"], *(f"{name}, {part}" for part, name in metrics)], body)
            + f"\nSeeds {seeds}.\n\n"
            + picture(f"sweep-{name}", f"{row['metric']} over {row['key']}")
            + "\n"
            + code([row["command"]])
        )
    return "\n".join(texts)


def _told(names: Iterable[str]) -> list[str]:
    """The metrics that have a column: all; where there are cohorts, the first of the whole and theirs."""
    every = list(names)
    whole = [name for name in every if ":" not in name]
    kept = whole if len(whole) == len(every) else whole[:FIRST]
    return [name for name in every if name.partition(":")[0] in kept]


def _cell(found: Row | None) -> str:
    if found is None:
        return ""
    return f"{found['mean']:.4f}" + ("" if found["deviation"] is None else f" ± {found['deviation']:.4f}")
