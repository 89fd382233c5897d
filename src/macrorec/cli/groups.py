"""Which groups do users and items fall into, and do they find what was planted? ``macrorec data groups``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from macrorec.cli.logs import (
    BehaviorName,
    Columns,
    Format,
    Log,
    Negative,
    NoQuotes,
    Separator,
    Target,
    TimeUnit,
    declared,
    noted,
    prepared,
    source_of,
)
from macrorec.cli.options import Json, Seed
from macrorec.cli.output import answer, table
from macrorec.errors import ConfigError

if TYPE_CHECKING:
    from macrorec.data.catalog import Catalog
    from macrorec.data.log import Interactions
    from macrorec.graph.groups import Groups


def groups(
    path: Log,
    items: Annotated[str | None, typer.Option("--items", metavar="FILE", help="An item file, for categories.")] = None,
    category: Annotated[
        str | None, typer.Option("--category", metavar="COL", help="Its column of categories.  [default: by its name]")
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", metavar="COL", help="Its column of titles.  [default: by its name]")
    ] = None,
    pick: Annotated[str, typer.Option("--pick", help="Of several categories: first, last, rarest, or all.")] = "first",
    users: Annotated[int, typer.Option("--users", metavar="N", help="Groups of users.")] = 20,
    item_groups: Annotated[
        int | None,
        typer.Option("--item-groups", metavar="N", help="Groups of items by k-means.  [default: by category, else 20]"),
    ] = None,
    dim: Annotated[int, typer.Option("--dim", help="Numbers per behaviour vector of an item.")] = 32,
    truth: Annotated[
        str | None,
        typer.Option("--truth", metavar="FOLDER", help="A synthetic market, to compare with what it planted."),
    ] = None,
    positive: Annotated[float | None, typer.Option("--positive", help="Only rows with at least this label.")] = None,
    top: Annotated[int, typer.Option("--top", min=0, help="Items to show per group.")] = 3,
    format: Format = "auto",  # noqa: A002
    column: Columns = None,
    time_unit: TimeUnit = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    behavior: BehaviorName = None,
    target: Target = None,
    negative: Negative = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Show the groups that a macro graph would count by.

    Items by category, or by k-means on who met them; users by k-means on the groups of items that they met. Each group
    with its size and the items that set it apart; objective: how far nodes are from their groups' centres.

    Example: macrorec data groups market/log.parquet --items market/items.parquet --users 10 --truth market
    """
    from macrorec.data.catalog import read_catalog
    from macrorec.data.prepare import PrepareConfig
    from macrorec.graph.groups import by_category, by_kmeans, item_vectors, objective, user_vectors

    source = source_of(
        path,
        format=format,
        columns=column,
        time_unit=time_unit,
        separator=separator,
        no_quotes=no_quotes,
        behavior=behavior,
    )
    source = replace(source, items=items, category=category, title=title)
    if dim < 1:
        raise ConfigError(f"--dim is {dim}; it must be 1 or more")
    noted(source)
    source = declared(source, target, negative)
    log = _history(prepared(source, PrepareConfig(dedupe="none", positive=positive)).train)
    catalog = read_catalog(source, log.items)
    events = log.user, log.item, log.weight
    n_users, n_items = len(log.users), len(log.items)
    if catalog is not None and catalog.category is not None and item_groups is None:
        of_items, moved, how = by_category(*catalog.groups(pick)), None, f"category {catalog.category!r}, {pick}"
    else:
        vectors = item_vectors(*events, n_users, n_items, dim, seed=seed)
        of_items = by_kmeans(vectors, 20 if item_groups is None else item_groups, seed=seed)
        moved, how = objective(vectors, of_items), "k-means"
    vectors = user_vectors(*events, of_items, n_users)
    of_users = by_kmeans(vectors, users, seed=seed)
    found = {
        "users": _side(of_users, "k-means", objective(vectors, of_users), of_users.of_N[log.user], log, catalog, top),
        "items": _side(of_items, how, moved, of_items.of_N[log.item], log, catalog, top),
    }
    if truth is not None:
        _compare(truth, log, found, {"users": of_users, "items": of_items})
    about = None
    if catalog is not None:
        about = {name: getattr(catalog, name) for name in ("path", "category", "absent", "empty", "strangers")}
    answer({"rows": len(log), "seed": seed, "catalog": about, **found}, json, _lines(found, catalog))


def _history(log: Interactions) -> Interactions:
    """The events that count: no negative behaviour, and of the target, where there are labels, those above .5."""
    import numpy as np

    counts = np.array([behavior.role != "negative" for behavior in log.behaviors])[log.behavior]
    if log.label is not None:
        counts &= (log.behavior != log.target) | (log.label > 0.5)
    scale = np.array([behavior.weight for behavior in log.behaviors])
    weight = scale[log.behavior] * (1 if log.weight is None else log.weight)
    return replace(log, weight=weight.astype(np.float32)).take(counts)


def _side(
    found: Groups, how: str, moved: float | None, group_E: Any, log: Interactions, catalog: Catalog | None, top: int
) -> dict[str, Any]:
    """One side's groups as plain values."""
    import numpy as np

    from macrorec.graph.groups import distinctive

    best = distinctive(group_E, log.item, log.weight, found.n, top)
    events = np.bincount(group_E[group_E >= 0], minlength=found.n)
    titles = None if catalog is None else catalog.titles
    named = [
        [(titles[item] if titles is not None else None) or str(log.items.ids[item]) for item in members]
        for members in best
    ]
    return {
        "by": how,
        "nodes": len(found),
        "unknown": found.unknown,
        "objective": moved,
        "groups": [
            {"group": k, "name": found.names[k] if found.names else None, "size": size, "events": count, "top": shown}
            for k, (size, count, shown) in enumerate(zip(found.sizes.tolist(), events.tolist(), named, strict=True))
        ],
    }


def _compare(folder: str, log: Interactions, found: dict[str, Any], sides: dict[str, Groups]) -> None:
    """Add each side's agreement with the truth of the market in ``folder``."""
    from macrorec.data.synthetic import read_truth
    from macrorec.graph.groups import agreement

    for side, planted in zip(("users", "items"), read_truth(folder, log.users, log.items), strict=True):
        found[side]["agreement"] = agreement(sides[side], planted)


def _lines(found: dict[str, Any], catalog: Catalog | None) -> list[str]:
    lines: list[str] = []
    for side, told in found.items():
        facts = [
            f"{side}: {len(told['groups'])} groups by {told['by']}",
            f"{told['unknown']:,} of {told['nodes']:,} unknown",
        ]
        if told["objective"] is not None:
            facts.append(f"objective {told['objective']:.6g}")
        if "agreement" in told:
            facts.append(f"adjusted mutual information with the truth {told['agreement']:.3f}")
        rows: list[tuple[object, ...]] = [("group", "size", "events", "what sets it apart")]
        for group in told["groups"]:
            name = group["group"] if group["name"] is None else group["name"]
            rows.append((name, group["size"], group["events"], "; ".join(group["top"])))
        lines += [", ".join(facts), *table(rows), ""]
    if catalog is not None:
        lines.append(
            f"{catalog.path}: {catalog.absent:,} items of the log absent, {catalog.empty:,} without category, "
            f"{catalog.strangers:,} rows of items outside the log"
        )
    return lines
