"""Which verbs bring a log in, and look at it? ``macrorec data import | convert | describe | check | synth``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from macrorec.cli.groups import groups
from macrorec.cli.logs import (
    BehaviorName,
    Columns,
    Format,
    Log,
    Negative,
    NoMask,
    NoQuotes,
    Separator,
    Target,
    TimeUnit,
    declared,
    noted,
    prepared,
    source_of,
)
from macrorec.cli.options import Json, Seed, group
from macrorec.cli.output import answer, note, table
from macrorec.errors import ConfigError

if TYPE_CHECKING:
    from macrorec.data.importing import ImportReport
    from macrorec.data.log import Split
    from macrorec.data.sources.source import Source

app = group("Import, describe, check, convert, group, or synthesise a behaviour log.")
app.command("groups")(groups)

Valid = Annotated[str | None, typer.Option("--valid", metavar="FILE", help="A valid part of its own.")]
Test = Annotated[str | None, typer.Option("--test", metavar="FILE", help="A test part of its own.")]
CUTS = "leave-last-one, leave-one-out, random-fraction:0.2, time-quantile:0.9, given, nothing"


@app.command("import")
def import_(
    path: Log,
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="The file to write.")],
    format: Format = "auto",  # noqa: A002
    column: Columns = None,
    time_unit: TimeUnit = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    behavior: BehaviorName = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave wrong rows out, and count them.")] = False,
    json: Json = False,
) -> None:
    """Check a log and write it as Parquet.

    One streaming pass, for logs larger than memory, too. OUT appears whole or not at all.

    Example: macrorec data import clicks.csv clicks.parquet --column user_id=customer
    """
    from macrorec.data.importing import import_log

    source = source_of(
        path,
        format=format,
        columns=column,
        time_unit=time_unit,
        separator=separator,
        no_quotes=no_quotes,
        behavior=behavior,
    )
    _told(import_log(source, out, on_error="skip" if skip_bad else "raise"), json)


@app.command("convert")
def convert(
    path: Log,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="csv, parquet, jsonl, atomic, lightgcn or edges.  [default: by OUT's ending]"),
    ] = None,
    allow_loss: Annotated[bool, typer.Option("--allow-loss", help="Leave out columns that OUT cannot hold.")] = False,
    format: Format = "auto",  # noqa: A002
    column: Columns = None,
    time_unit: TimeUnit = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    behavior: BehaviorName = None,
    json: Json = False,
) -> None:
    """Write a log in another format.

    Example: macrorec data convert ml-100k/ml-100k.inter ratings.csv
    """
    from macrorec.data.importing import convert as write

    source = source_of(
        path,
        format=format,
        columns=column,
        time_unit=time_unit,
        separator=separator,
        no_quotes=no_quotes,
        behavior=behavior,
    )
    _told(write(source, out, to=to, allow_loss=allow_loss), json)


@app.command("describe")
def describe(
    path: Log,
    format: Format = "auto",  # noqa: A002
    column: Columns = None,
    time_unit: TimeUnit = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    behavior: BehaviorName = None,
    target: Target = None,
    negative: Negative = None,
    json: Json = False,
) -> None:
    """Say what is in a log.

    Counts, density, behaviours, times, and degrees.

    Example: macrorec data describe taobao/train.parquet --target buy
    """
    from macrorec.data.describe import describe as described
    from macrorec.data.describe import table as drawn
    from macrorec.data.prepare import PrepareConfig

    source = source_of(
        path,
        format=format,
        columns=column,
        time_unit=time_unit,
        separator=separator,
        no_quotes=no_quotes,
        behavior=behavior,
    )
    notes = noted(source)
    source = declared(source, target, negative)
    result = described(prepared(source, PrepareConfig(dedupe="none")).train)
    answer({**result, "notes": notes}, json, drawn(result).splitlines())


@app.command("check")
def check(
    path: Annotated[str | None, typer.Argument(metavar="[FILE]", help="The log; none with --recipe.")] = None,
    valid: Valid = None,
    test: Test = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME|FILE.toml", help="Check the split of this recipe instead.")
    ] = None,
    cut: Annotated[
        str | None, typer.Option("--split", metavar="KIND", help=f"{CUTS}.  [default: as the log allows]")
    ] = None,
    dedupe: Annotated[str, typer.Option("--dedupe", help="first, last, sum or none.")] = "first",
    k_core: Annotated[int, typer.Option("--k-core", min=0, help="k of a k-core on the target behaviour.")] = 0,
    positive: Annotated[float | None, typer.Option("--positive", help="Keep rows with at least this label.")] = None,
    format: Format = "auto",  # noqa: A002
    column: Columns = None,
    time_unit: TimeUnit = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    behavior: BehaviorName = None,
    target: Target = None,
    negative: Negative = None,
    no_mask: NoMask = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Look for leaks and other faults of a split.

    Overlap between parts, train events later than test, positives that no ranking can reach, odd times and labels.
    Exits with 1 if a finding is an error.

    Example: macrorec data check taobao/train.parquet --test taobao/test.parquet --target buy
    """
    from macrorec.data.audit import audit

    if (path is None) == (recipe is None):
        raise ConfigError("data check takes a FILE, or --recipe NAME; not both, not none")
    if recipe is not None:
        from macrorec.cli.target import resolve
        from macrorec.inputs import read_split

        config = resolve(recipe, [], None)[1]
        parts = read_split(config.source, config.prepare, config.split, seed=config.seed)
    else:
        assert path is not None
        source = source_of(
            path,
            valid=valid,
            test=test,
            format=format,
            columns=column,
            time_unit=time_unit,
            separator=separator,
            no_quotes=no_quotes,
            behavior=behavior,
        )
        noted(source)
        parts = _split(declared(source, target, negative, no_mask), cut, dedupe, k_core, positive, seed)
    findings = audit(parts)
    steps = [("step", "rows", "users", "items", "note")]
    steps += [(s["step"], s["rows"], s["users"], s["items"], s["note"]) for s in parts.report]
    order = {"error": 0, "warning": 1, "info": 2, "ok": 3}
    told = sorted(findings, key=lambda f: order[f.severity])
    lines = [*table(steps), "", *(f"{f.severity:<7}  {f.name}: {f.text}" for f in told)]
    answer({"report": parts.report, "findings": [asdict(finding) for finding in findings]}, json, lines)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


@app.command("synth")
def synth(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make.")],
    users: Annotated[int | None, typer.Option("--users", min=1, help="Number of users.")] = None,
    items: Annotated[int | None, typer.Option("--items", min=1, help="Number of items.")] = None,
    events: Annotated[int | None, typer.Option("--events", min=1, help="Expected number of events.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: cart_rate=0.2.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Make a synthetic market.

    A log of views, carts and buys, with its truth (groups and clusters) beside it.

    Example: macrorec data synth market --users 10000 --items 2000 --events 1000000 --seed 7
    """
    from macrorec import configs
    from macrorec.data.synthetic import MarketConfig, write_market

    sizes = {"users": users, "items": items, "events": events}
    given = {name: value for name, value in sizes.items() if value is not None}
    start = {**configs.plain(MarketConfig()), **given}
    config = configs.parse(MarketConfig, configs.assign(start, sets or [], MarketConfig))
    report = write_market(config, folder, seed)
    counts = ", ".join(f"{count:,} {name}" for name, count in report.behaviors.items())
    line = f"{report.folder}: {report.events:,} events ({counts}) of {report.users:,} users and {report.items:,} items"
    answer({**asdict(report), "seed": seed}, json, [line])


# --- what the commands share -----------------------------------------------------------------------------------------


def _split(source: Source, cut: str | None, dedupe: Any, k_core: int, positive: float | None, seed: int) -> Split:
    from macrorec import configs
    from macrorec.data.prepare import PrepareConfig
    from macrorec.data.split import SplitConfig, split

    ready = prepared(source, PrepareConfig(dedupe=dedupe, k_core=k_core, positive=positive))
    if cut is None:
        cut = "leave-one-out" if ready.train.time is None else "leave-last-one"
        if source.test is not None or source.valid is not None:
            cut = "given" if source.test is not None else "nothing"
        note(f"note: the test cut is {cut!r}; --split names another")
    kind, colon, value = cut.partition(":")
    names = {"random-fraction": "fraction", "time-quantile": "quantile"}
    if (kind in names) != bool(colon):
        raise ConfigError(f"--split is {cut!r}; allowed are {CUTS}")
    test = {"kind": kind, **({names[kind]: configs.value_of(value)} if colon else {})}
    valid = {"kind": "given" if source.valid is not None else "nothing"}
    config = configs.parse(SplitConfig, {"test": test, "valid": valid}, "split")
    return split(ready, config, seed=seed)


def _told(report: ImportReport, json: bool) -> None:
    for line in report.inference.notes:
        note(f"note: {line}")
    size = f"{report.bytes_written / 2**20:.1f} MiB"
    speed = f"{report.rows_read / max(report.seconds, 1e-9) / 1e6:.1f} million rows/s"
    lines = [f"{report.out}: {report.rows_written:,} rows, {size}, {', '.join(report.columns)} ({speed})"]
    if report.behaviors:
        lines.append("behaviours: " + ", ".join(f"{name} {count:,}" for name, count in report.behaviors.items()))
    if report.lost:
        lines.append(f"left out: {', '.join(report.lost)}")
    lines += [f"rejected: {r['rows']:,} rows: {r['reason']}; the first at {r['first']}" for r in report.rejected]
    answer(asdict(report), json, lines)
