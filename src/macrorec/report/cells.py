"""How do results become cells of a Markdown table? Means over seeds, labels, commands."""

from __future__ import annotations

import shlex
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
"""One result: a run on file."""


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"


def code(lines: Iterable[str]) -> str:
    """A block of commands."""
    return "```\n" + "\n".join(lines) + "\n```\n"


def picture(name: str, says: str) -> str:
    """The plot ``name``, which stands beside the page; see ``macrorec.report.plots``."""
    return f"![{says}](plots/{name}.svg)\n"


def spread(values: Sequence[float]) -> str:
    """The mean, and the standard deviation where there are several."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"


def short(value: Any) -> str:
    """A number in four digits, or text as it is."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def seeds(rows: Iterable[Row]) -> list[int]:
    """The seeds of ``rows``, ascending, each once."""
    return sorted({row["seed"] for row in rows})


def label(row: Row) -> str:
    """The recipe, and what its command sets."""
    return " ".join([str(row["recipe"]), *changes(row)])


def changes(row: Row) -> list[str]:
    """What a run's command sets: ``model.l2=300``."""
    words = shlex.split(str(row["command"]))
    return [words[n + 1] for n, word in enumerate(words[:-1]) if word == "--set"]


def model(row: Row) -> str:
    """The model's name."""
    return str(row["config"]["model"]["name"])


def speaks_of(known: Row, row: Row) -> bool:
    """Whether a published value is of a run's model; and of its recipe, where the value names one."""
    return bool(known["model"].lower() == model(row) and known.get("recipe", row["recipe"]) == row["recipe"])


def dataset(row: Row) -> str:
    """What follows the model's name and its variant's in the recipe's: ``taobao`` of ``ngcf-mb-taobao``.

    A variant is what stands before the folder of the log. Extra rows of train make no other data set: test is the same.
    """
    name, source = str(row["recipe"]).removeprefix(model(row) + "-"), row["config"].get("source", {})
    folder, _, file = str(source.get("path", "")).partition("/")
    if file and name.find(f"-{folder}") > 0:
        name = name[name.index(f"-{folder}") + 1 :]
    return name.removesuffix("-extra") if source.get("extra") else name


def searched(search: Row) -> str:
    """The budget of a search: how many trials, and of how many seeds each was the mean."""
    trials, n_seeds = search["spent"]["trials"], len(search["budget"]["seeds"])
    return f"{trials} trials" if n_seeds == 1 else f"{trials} trials of {n_seeds} seeds"


def by_label(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The runs of each label, in order of labels, then seeds."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (label(row), row["seed"])):
        groups[label(row)].append(row)
    return dict(groups)


def tied(comparison: Row, groups: Iterable[Sequence[Row]]) -> bool:
    """Whether a comparison's first runs are one of ``groups``."""
    names = set(comparison["first"]["runs"])
    return any(names == {row["run"] for row in rows} for rows in groups)


def reproducing(rows: Sequence[Row]) -> str:
    """One command that makes all runs of one label."""
    target = shlex.split(str(rows[0]["command"]))[2]
    sets = [word for change in changes(rows[0]) for word in ("--set", change)]
    return shlex.join(["macrorec", "reproduce", target, *sets, "--seeds", ",".join(map(str, seeds(rows)))])
