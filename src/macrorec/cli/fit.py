"""Which verb goes from one's own log to recommendations in one command? ``macrorec fit``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from macrorec.cli.logs import Columns, Log, Target
from macrorec.cli.options import Device, Json, Seed
from macrorec.cli.output import answer
from macrorec.cli.recommend import K, rows_of
from macrorec.cli.target import Sets, Threads, limit_threads
from macrorec.errors import ConfigError

SHOWN = 3
"""Users whose recommendations are shown where nobody is asked for: those with the most items."""


def fit(
    log: Log,
    out: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder that the bundle becomes.")],
    model: Annotated[str, typer.Option("--model", help="Which model; 'macrorec models' tells them all.")] = "ease",
    sets: Sets = None,
    target: Target = None,
    columns: Columns = None,
    positive: Annotated[
        float | None, typer.Option("--positive", help="Keep rows with at least this rating; a ranker: what is liked.")
    ] = None,
    users: Annotated[
        list[str] | None,
        typer.Option("--user", help="Recommend to this user; repeatable.  [default: three with the most items]"),
    ] = None,
    k: K = 10,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    """Fit a model to all of a log, save it as a bundle, and recommend.

    Nothing is held out: 'macrorec run' measures. 'macrorec recommend', 'explain' and 'serve' answer from the bundle.

    Example: macrorec fit clicks.csv shop.bundle --model lightgcn --target buy --set dim=32
    """
    limit_threads(threads)
    from macrorec import files
    from macrorec.bundle import MANIFEST
    from macrorec.cli.logs import source_of
    from macrorec.recommender import fit as fitted

    files.may_become(out, MANIFEST)
    mapping = source_of(log, columns=columns).columns
    recommender = fitted(
        log,
        model,
        target=target,
        columns=mapping,
        positive=positive,
        seed=seed,
        device=device,
        quiet=quiet,
        **settings(sets or []),
    )
    recommender.save(out)
    active = recommender.activity().sort("n_items", descending=True, maintain_order=True)
    asked = users or active["user_id"].head(SHOWN).to_list()
    found = recommender.recommend(asked, k)
    result = {
        "bundle": str(out),
        "model": model,
        "users": len(recommender.users),
        "items": len(recommender.items),
        "recommendations": found.to_dicts(),
    }
    place = shlex.quote(str(out))
    lines = [
        *rows_of(found),
        "",
        f"{model} of {result['users']:,} users and {result['items']:,} items is in {out}. Go on with",
        f"  macrorec recommend {place} --user {shlex.quote(str(asked[0]))}",
        f"  macrorec serve {place} --data {shlex.quote(str(out.with_suffix('.data')))}",
    ]
    answer(result, json, lines)


def settings(sets: list[str]) -> dict[str, Any]:
    """``dim=32`` or ``model.dim=32`` as a setting and its value. Raises ConfigError for what has no ``=``."""
    from macrorec.configs import value_of

    found = {}
    for entry in sets:
        key, equals, text = entry.partition("=")
        if not equals:
            raise ConfigError(f"--set takes KEY=VALUE, such as dim=32; got {entry!r}")
        found[key.strip().removeprefix("model.").removeprefix("train.")] = value_of(text.strip())
    return found
