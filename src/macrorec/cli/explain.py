"""Which verbs say what a model made of the log? Why an item, what a user's items are known by, weights of edges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from macrorec.cli.options import Device, Json
from macrorec.cli.output import answer, table
from macrorec.cli.recommend import K, Place, rows_of
from macrorec.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

    from macrorec.recommender import Explanation, Recommender

EXAMPLES = 3
"""Items told of each region."""
TITLE = 24
"""Characters told of a title."""


def explain(
    place: Place,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    item: Annotated[str | None, typer.Argument(metavar="[ITEM]", help="The item's id.")] = None,
    k: K = 10,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Without ITEM: draw the regions, too.")
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Say what carried the score of an item for a user; without an item, what the user's items are known by.

    Of a ranker, that is the k macro neighbours of each hop that add most to the logit, and the others together. Without
    ITEM: the regions of the Venn diagram of the user's items over the behaviours, with the mean weight that the model
    gives to their edges, where it gives weights.

    Example: macrorec explain demo/bundle u00007 i00042
    """
    from macrorec.recommender import load

    if plot is not None and (item is not None or plot.suffix != ".svg"):
        raise ConfigError("--plot draws the regions of a user's items: it takes no ITEM, and a file that ends in .svg")
    recommender = load(place, device=device)
    if item is None:
        _regions(recommender, user, plot, json)
        return
    found = recommender.explain(user, item, k)
    result = {name: getattr(found, name) for name in ("user_id", "item_id", "score", "path", "exact")}
    means = {
        "popular": "the score is the number of users with the item; the user's own items play no part",
        "exact": "weights are the terms of the score, and sum to it over all items of the user",
        "alike": "the score is no sum over items; weights are likenesses to the item",
        "macro": "contributions are the terms of the score, which is a logit, and sum to it",
    }["popular" if found.path == "popular" else _kind(found)]
    shown = _by_hop(found.reasons) if _kind(found) == "macro" else rows_of(found.reasons)
    lines = [f"{user} -> {item}: score {found.score:.4f}, by {found.path}", means, *shown]
    answer({**result, "reasons": found.reasons.to_dicts()}, json, lines)


def weights(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The record.  [default: results/weights/<recipe>.json]"),
    ] = None,
    json: Json = False,
) -> None:
    """Tell how a model weighs the edges of each behaviour.

    Quantiles of its edge weights; the record makes a table and a plot of ``macrorec results``.

    Example: macrorec weights runs/swgcn-taobao-0-1a2b3c4d
    """
    from macrorec import files
    from macrorec.report import edges
    from macrorec.store import Run

    result = edges.weighed(Run.open(folder))
    place = out or Path("results/weights") / f"{result['recipe']}.json"
    with files.told(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(place, result)
    answer({**result, "file": str(place)}, json, [*table(edges.rows(result)), "", edges.MEANS, f"wrote {place}"])


# --- the parts -------------------------------------------------------------------------------------------------------


def _regions(recommender: Recommender, user: str, plot: Path | None, json: bool) -> None:
    """Tell, and draw, the regions of a user's items."""
    found = recommender.regions(user)
    if not len(found):
        raise DataError(f"user {user!r} has no items by any behaviour: there is nothing to tell")
    names = [behavior.name for behavior in recommender.behaviors]
    result: dict[str, Any] = {"user_id": user, "behaviors": names, "regions": found.to_dicts()}
    weighs = found["weight"].null_count() < len(found)
    what = "weight is the mean weight of the edges" if weighs else "the model gives edges no weight: events are counted"
    lines = [f"{user}: {found['items'].sum():,} items; {what}", *_told(found, names, weighs=weighs)]
    if plot is not None:
        from macrorec.cli.results import write_text
        from macrorec.report import venn

        write_text(plot, venn.drawn(found, names, user))
        result, lines = {**result, "plot": str(plot)}, [*lines, "", f"drawn in {plot}"]
    answer(result, json, lines)


def _told(found: pl.DataFrame, names: list[str], *, weighs: bool) -> list[str]:
    """A line per region: its behaviours, how many items, mean weight or events, the same by behaviour, examples."""
    column, digits = ("weights", ".4f") if weighs else ("events", ",")
    head = ["known by", "items", "weight" if weighs else "events", *names, "such as"]
    body: list[list[Any]] = []
    for row in found.to_dicts():
        values = {name: value for name, value in zip(row["behaviors"], row[column], strict=True) if value is not None}
        whole = row["weight"] if weighs else sum(row["events"])
        numbers = [format(value, digits) if value is not None else "" for value in (whole, *map(values.get, names))]
        titles = row.get("titles") or [None] * len(row["item_ids"])
        such = [_short(title or str(own)) for title, own in zip(titles, row["item_ids"], strict=True)]
        more = ["..."] * (len(such) > EXAMPLES)
        body.append([" + ".join(row["behaviors"]), row["items"], *numbers, ", ".join([*such[:EXAMPLES], *more])])
    return table([head, *body])


def _short(text: str) -> str:
    return text if len(text) <= TITLE else f"{text[: TITLE - 3]}..."


def _kind(found: Explanation) -> Literal["macro", "exact", "alike"]:
    """What the numbers of an explanation are."""
    return "macro" if "contribution" in found.reasons.columns else "exact" if found.exact else "alike"


def _by_hop(reasons: pl.DataFrame) -> list[str]:
    """A ranker's reasons hop by hop, then their sum."""
    body: list[list[str]] = [["of", "via", "what", "count", "weight", "attention", "contribution"]]
    before = None
    for side, via, what, *numbers, share in reasons.rows():
        place = ["", ""] if (side, via) == before else [side, via]
        cells = ["" if number is None else f"{number:.4g}" for number in numbers]
        body.append([*place, what, *cells, f"{share:+.4f}"])
        before = (side, via)
    return table([*body, ["", "sum", "", "", "", "", f"{reasons['contribution'].sum():+.4f}"]])
