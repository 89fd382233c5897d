"""What did searches choose, and which settings mattered? A table of all, and a plot of each that had enough trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from statistics import fmean
from typing import Any

from macrorec.report.cells import Row, code, picture, searched, short, table

ENOUGH = 20
"""Finished trials from which it is told what mattered: fewer leave it to chance."""
PARTS = 3
"""Parts, of as many trials each, that the values of a range are cut into."""


def finished(search: Row) -> list[Row]:
    """The trials that have a value."""
    return [trial for trial in search["trials"] if trial.get("value") is not None]


def telling(searches: Sequence[Row]) -> dict[str, Row]:
    """The searches over several settings with ``ENOUGH`` finished trials, by the name of their plot.

    Those of one recipe are numbered in order of their commands.
    """
    kept: dict[str, Row] = {}
    for row in sorted(searches, key=lambda row: (row["recipe"], str(row["command"]))):
        if len(row["space"]) > 1 and len(finished(row)) >= ENOUGH:
            first = f"search-{row['recipe']}"
            name = next(name for n in count(1) if (name := first if n == 1 else f"{first}-{n}") not in kept)
            kept[name] = row
    return kept


def mattered(search: Row) -> list[tuple[str, float]]:
    """Settings with the share of the variance of trials that they explain one by one, largest first.

    Eta squared: the variance between the means of groups of trials over that of all. A group has one value of a
    choice; the values of a range are cut at ranks into ``PARTS`` groups of like size. Shares need not add up to one:
    a sampler tries good values of several settings together.
    """
    trials = finished(search)
    values = [float(trial["value"]) for trial in trials]
    whole = sum((value - fmean(values)) ** 2 for value in values)
    shares = []
    for key, space in search["space"].items():
        groups: dict[Any, list[float]] = defaultdict(list)
        for group, value in zip(_groups([trial["settings"][key] for trial in trials], space), values, strict=True):
            groups[group].append(value)
        between = sum(len(own) * (fmean(own) - fmean(values)) ** 2 for own in groups.values())
        if len(groups) > 1:
            shares.append((key, between / whole if whole else 0.0))
    return sorted(shares, key=lambda share: (-share[1], share[0]))


def _groups(settings: Sequence[Any], space: Any) -> list[Any]:
    """The group of each trial's setting."""
    if not isinstance(space, dict):
        return [repr(value) for value in settings]
    order = sorted(range(len(settings)), key=lambda place: settings[place])
    part = [0] * len(settings)
    for rank, place in enumerate(order):
        part[place] = rank * PARTS // len(settings)
    return part


def section(searches: Sequence[Row]) -> str:
    """What each search chose; then what mattered in those of ``telling``."""
    body = []
    for row in sorted(searches, key=lambda row: str(row["command"])):
        settings = ", ".join(f"{key} = {short(value)}" for key, value in row["best"]["settings"].items())
        budget = f"{searched(row)}, {row['spent']['seconds']:.0f} s"
        test = ", ".join(f"{name} {value:.4f}" for name, value in row["run"]["metrics"]["test"].items())
        body.append([row["recipe"], f"{row['metric']} {row['best']['value']:.4f}", settings, budget, test])
    head = ["recipe", "best on valid", "settings", "budget", "refitted, on test"]
    text = table(head, body) + "\n" + code(sorted({row["command"] for row in searches}))
    told = telling(searches)
    if told:
        text += (
            "\n### What mattered\n\nThe share of the variance of a search's trials that each setting explains by "
            f"itself: between its values, or between {PARTS} parts of its range with as many trials each.\n\n"
        )
        rows = [
            [row["recipe"], str(len(finished(row))), ", ".join(f"{key} {share:.0%}" for key, share in mattered(row))]
            for row in told.values()
        ]
        text += table(["recipe", "finished trials", "explained by"], rows)
        for name, row in told.items():
            text += "\n" + picture(name, f"{row['metric']} on valid over each setting, {row['recipe']}")
    return text
