"""Which verbs answer for one's own users? Recommend, and a demonstration of the whole."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from macrorec.cli.options import Device, Json, Seed
from macrorec.cli.output import answer, note, table
from macrorec.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

    from macrorec.recommender import Recommender

Place = Annotated[Path, typer.Argument(metavar="BUNDLE|RUN", help="The folder of a bundle or of a finished run.")]
K = Annotated[int, typer.Option("-k", "--k", help="How many.")]

BRIEFLY: dict[str, Any] = {"epochs": 40, "batch_size": 512, "lr": 5e-3}
DEMO_MODELS: dict[str, dict[str, Any]] = {
    "popular": {},
    "itemknn": {},
    "ease": {"l2": 100.0},
    "gfcf": {"n_vectors": 64},
    "bpr": {"l2": 1e-2, **BRIEFLY},
    "lightgcn": {"n_layers": 2, **BRIEFLY},
}
"""What ``demo`` fits, with settings for a market of its size; the learned ones briefly."""


def recommend(
    place: Place,
    users: Annotated[list[str] | None, typer.Option("--user", help="A user's id; repeatable.")] = None,
    file: Annotated[Path | None, typer.Option("--users", metavar="FILE", help="Users' ids, one per line.")] = None,
    items: Annotated[str | None, typer.Option("--items", metavar="A,B,C", help="For somebody new with these.")] = None,
    k: K = 10,
    seen: Annotated[bool, typer.Option("--seen", help="Recommend what the user has, too.")] = False,
    unknown: Annotated[str, typer.Option("--unknown", help="Unknown ids: error, skip, or fallback.")] = "error",
    out: Annotated[Path | None, typer.Option("--out", help="Write to this .csv, .parquet or .jsonl instead.")] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Recommend items to users, by their own ids.

    Example: macrorec recommend demo/bundle --user u00007 -k 5
    """
    if items is not None and (users or file):
        raise ConfigError("give either users (--user, --users) or the items of somebody new (--items)")
    if items is None and not users and file is None:
        raise ConfigError("whom for? Give --user ID, --users FILE, or --items A,B,C")
    if out is not None and out.suffix not in WRITERS:
        raise ConfigError(f"--out ends in {out.suffix!r}; allowed are {', '.join(WRITERS)}")
    recommender = _load(place, device)
    policy: Any = unknown
    if items is not None:
        given = [item.strip() for item in items.split(",") if item.strip()]
        found = recommender.recommend_for(given, k, filter_seen=not seen, unknown=policy)
    else:
        asked = [*(users or []), *(_lines(file) if file else [])]
        found = recommender.recommend(asked, k, filter_seen=not seen, unknown=policy)
    if out is None:
        answer({"recommendations": found.to_dicts()}, json, rows_of(found))
    else:
        _write(found, out)
        answer({"rows": len(found), "out": str(out)}, json, [f"{len(found):,} rows in {out}"])


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the market and a bundle are written.")] = Path("demo"),
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """See everything work on a small synthetic market.

    Makes a market, splits it by time, fits six models, measures them, and recommends.

    Example: macrorec demo --folder demo
    """
    from macrorec.data.log import Behavior
    from macrorec.data.market import BEHAVIORS
    from macrorec.data.prepare import prepare
    from macrorec.data.sources.source import Source, read
    from macrorec.data.split import LeaveLastOne, SplitConfig, split
    from macrorec.data.synthetic import MarketConfig, write_market
    from macrorec.eval.evaluate import evaluate
    from macrorec.eval.ranking import EvalConfig
    from macrorec.recommender import fit

    began = time.perf_counter()
    market = write_market(MarketConfig(), folder / "market", seed)
    note(f"market: {market.events:,} events of {market.users:,} users on {market.items:,} items, in {market.folder}")
    *auxiliary, target = BEHAVIORS
    schema = (*(Behavior(name=name, role="auxiliary", mask=False) for name in auxiliary), Behavior(name=target))
    log = Source(path=str(market.folder / "log.parquet"), behaviors=schema)
    parts = split(prepare({"train": read(log)}, schema), SplitConfig(test=LeaveLastOne()), seed=seed)
    note(f"split: each user's last {target} is held out ({len(parts.test):,}); train keeps {len(parts.train):,} events")
    wanted = EvalConfig(metrics=("recall@10", "recall@20", "ndcg@20"))
    results = []
    for name, settings in DEMO_MODELS.items():
        note(f"{name} ...")
        start = time.perf_counter()
        fitted = fit(parts.train, name, seed=seed, quiet=not sys.stderr.isatty(), **settings)
        seconds = time.perf_counter() - start
        measured = evaluate(fitted.module, parts, "test", wanted)
        results.append({"model": name, **measured.metrics, "fit_seconds": seconds})
        if name == "ease":  # the strongest of those whose scores are sums over the user's items
            recommender, bundle = fitted, fitted.save(folder / "bundle")
    protocol = f"leave-last-one by time on {target!r}; mask: {measured.mask}; {measured.counts['users']:,} users"
    examples = [_example(recommender, user) for user in _active(recommender, 3)]
    total = time.perf_counter() - began
    result = {"market": market.folder, "bundle": bundle, "protocol": protocol, "results": results, "users": examples}
    lines = [
        *_table(results, protocol),
        *(line for example in examples for line in ("", *_told(example))),
        "",
        f"{total:.0f} seconds. Go on with: macrorec recommend {bundle} --user {examples[0]['user_id']}",
    ]
    answer({**result, "seconds": total}, json, lines)


# --- what the verbs share --------------------------------------------------------------------------------------------


def _load(place: Path, device: str) -> Recommender:
    from macrorec.recommender import load

    return load(place, device=device)


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    ids = [line for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{file} holds no user; give one id per line")
    return ids


WRITERS = {".csv": "write_csv", ".parquet": "write_parquet", ".jsonl": "write_ndjson"}


def _write(frame: pl.DataFrame, out: Path) -> None:
    from macrorec import files

    with files.told(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out, getattr(frame, WRITERS[out.suffix]))


def rows_of(frame: pl.DataFrame) -> list[str]:
    """A frame as a table for a reader."""
    rows = [[f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row] for row in frame.rows()]
    return table([frame.columns, *rows]) if rows else ["nothing"]


def _active(recommender: Recommender, n: int) -> list[Any]:
    """The first ``n`` users with three to six items."""
    active = recommender.activity()
    return active.filter(active["n_items"].is_between(3, 6))["user_id"].head(n).to_list()


def _example(recommender: Recommender, user: Any) -> dict[str, Any]:
    """What a user has, gets, and why."""
    found = recommender.recommend([user], 3)
    reasons = [recommender.explain(user, item, 2).reasons for item in found["item_id"]]
    answers = [
        {"item_id": item, "score": score, "because": why.to_dicts()}
        for item, score, why in zip(found["item_id"], found["score"], reasons, strict=True)
    ]
    return {"user_id": user, "history": recommender.history(user)["item_id"].to_list(), "recommendations": answers}


def _told(example: dict[str, Any]) -> list[str]:
    lines = [f"{example['user_id']} has bought {', '.join(map(str, example['history']))}. We recommend"]
    for found in example["recommendations"]:
        because = " and ".join(f"{why['item_id']} ({why['weight']:+.3f})" for why in found["because"])
        lines.append(f"  {found['item_id']}  score {found['score']:.3f}, most of all for {because}")
    return lines


def _table(results: list[dict[str, Any]], protocol: str) -> list[str]:
    from rich.console import Console
    from rich.table import Table

    columns = [name for name in results[0] if ":" not in name]
    best = {name: max(row[name] for row in results) for name in columns[1:-1]}
    shown = Table(title="One split, one protocol", caption=protocol)
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="left" if name == "model" else "right")
    for row in results:
        values = (f"{row[name]:.4f}{'*' if row[name] == best[name] else ' '}" for name in columns[1:-1])
        shown.add_row(row["model"], *values, f"{row['fit_seconds']:.1f}")
    console = Console(width=100)
    with console.capture() as text:
        console.print(shown)
    return [*text.get().splitlines(), "* best of its column"]
