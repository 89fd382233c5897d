"""Which clusters has a model found, and what are they good for? ``macrorec clusters``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from macrorec.cli.options import Json, Seed
from macrorec.cli.output import answer, table
from macrorec.cli.recommend import Place
from macrorec.errors import ConfigError

if TYPE_CHECKING:
    from macrorec.report.clusters import Found

TITLE = 28
"""Characters told of a title."""


def clusters(
    place: Place,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="What this user prefers, instead.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="With --user: how many clusters.")] = 5,
    top: Annotated[int, typer.Option("--top", min=0, help="Items to show per cluster.")] = 3,
    by: Annotated[str, typer.Option("--by", help="What makes a top item: strength, or events in train.")] = "strength",
    items: Annotated[
        str | None, typer.Option("--items", metavar="FILE", help="Another item file, for categories.")
    ] = None,
    category: Annotated[str | None, typer.Option("--category", metavar="COL", help="Its column of categories.")] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="COL", help="Its column of titles.")] = None,
    pick: Annotated[str, typer.Option("--pick", help="Of several categories: first, last, rarest, or all.")] = "first",
    truth: Annotated[
        str | None, typer.Option("--truth", metavar="FOLDER", help="A synthetic market, to compare with its truth.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw a map of the items.")] = None,
    projection: Annotated[str, typer.Option("--projection", help="Of the map: pca or tsne.")] = "pca",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.parquet", help="Write item_id, events, group, strengths.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Show the clusters that a model has found, how pure they are, and who prefers them.

    An item counts to its strongest cluster; mass adds up how much of each item a cluster has. Purity and adjusted
    mutual information are against the categories of the log's item file, or the planted truth of a synthetic market.
    What --out writes can be the item groups of a ranker: features.items = { kind = "file", path = "FILE.parquet" }.

    Example: macrorec clusters runs/ccbie-ml-100k-history-0-1a2b3c4d --out clusters.parquet
    """
    if by not in ("strength", "events"):
        raise ConfigError(f"--by is {by!r}; allowed are strength, events")
    if plot is not None and plot.suffix != ".svg":
        raise ConfigError(f"--plot ends in {plot.suffix!r}; it must end in .svg")
    if out is not None and out.suffix != ".parquet":
        raise ConfigError(
            f"--out ends in {out.suffix!r}; it must end in .parquet, which a ranker's groups are read from"
        )
    from macrorec.ids import number_of
    from macrorec.report import clusters as report

    chosen: Any = by
    found = report.found_in(place, items=items, category=category, title=title, pick=pick, truth=truth)
    written: dict[str, str] = {}
    if user is None:
        result = report.summary(found, top=top, by=chosen)
        lines = _overall(result, found)
    else:
        nodes = found.clusters.users.nodes
        number = number_of(nodes, user, "user")
        events = int(found.clusters.users.events_N[number])
        rows = report.preferred(found, number, k=k, top=top, by=chosen)
        result = {"user_id": nodes.ids[number], "events": events, "clusters": rows}
        lines = _of_user(result)
    if plot is not None:
        from macrorec.cli.results import write_text
        from macrorec.report import maps

        kind: Any = projection
        own = found.clusters.items
        write_text(plot, maps.drawn(own.strength_NK, own.group_N, kind, seed=seed))
        written["plot"] = str(plot)
    if out is not None:
        from macrorec import files

        with files.told(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        found.clusters.write_side("items", out)
        written["out"] = str(out)
    lines += ["", *(f"wrote {path}" for path in written.values())] if written else []
    answer({**result, **written}, json, lines)


def _overall(result: dict[str, Any], found: Found) -> list[str]:
    """The table of all clusters, and what they agree with."""
    against = result["against"]
    labelled = against is not None
    head = ["cluster", "items", "mass", "users", "liked", *(["purity", "mostly"] if labelled else []), "such as"]
    body = []
    for row in result["clusters"]:
        pure = [_share(row["purity"]), _short(row["label"] or "")] if labelled else []
        numbers = [row["cluster"], row["size"], f"{row['mass']:.1f}", row["users"], row["liked"]]
        body.append([*numbers, *pure, _such(row["top"])])
    unseen = ", ".join(f"{n:,} {side}" for side, n in result["without_cluster"].items() if n)
    lines = [
        f"{len(body)} clusters of {result['items']:,} items, as {result['users']:,} users prefer them",
        *([f"without an event in train: {unseen}; they have no cluster"] if unseen else []),
        "",
        *table([head, *body]),
        "",
    ]
    if not labelled:
        return [*lines, f"purity is not known: {found.missing}"]
    lines += [
        f"against {against['what']}: {against['items']:,} items, {against['labels']} labels",
        f"purity {_share(against['purity'])}, all in one cluster {_share(against['one_cluster'])}; "
        f"adjusted mutual information {_share(against['agreement'])}",
    ]
    if "users_agreement" in against:
        lines.append(f"users by their strongest cluster, against planted groups: {_share(against['users_agreement'])}")
    return lines


def _of_user(result: dict[str, Any]) -> list[str]:
    """A line per cluster."""
    body = [[row["cluster"], f"{row['preference']:.4f}", _such(row["top"])] for row in result["clusters"]]
    told = [] if result["events"] else ["no event in train: these preferences were never learned"]
    head = f"{result['user_id']}: {result['events']:,} items in train"
    return [head, *told, *table([["cluster", "preference", "such as"], *body])]


def _such(items: list[dict[str, Any]]) -> str:
    return "; ".join(_short(item["title"] or str(item["item_id"])) for item in items)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _short(text: str) -> str:
    return text if len(text) <= TITLE else f"{text[: TITLE - 3]}..."
