"""How do flags say where a log lies, and what its columns and behaviours mean?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from macrorec.cli.output import note
from macrorec.errors import ConfigError

if TYPE_CHECKING:
    from macrorec.data.log import Behavior, Role
    from macrorec.data.prepare import Prepared
    from macrorec.data.sources.source import Source

Log = Annotated[str, typer.Argument(metavar="FILE", help="The log: a path, or a path inside the data folder.")]
Format = Annotated[
    str,
    typer.Option("--format", help="csv, parquet, jsonl, atomic, movielens, lightgcn, edges; auto: by ending or look."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="Map a column, such as label=score; label= leaves it out."),
]
TimeUnit = Annotated[str | None, typer.Option("--time-unit", help="s or ms.  [default: by magnitude]")]
Separator = Annotated[str | None, typer.Option("--separator", help="What separates fields: ',', tab, '::'.")]
NoQuotes = Annotated[bool, typer.Option("--no-quotes", help="Quotation marks are ordinary characters.")]
BehaviorName = Annotated[
    str | None, typer.Option("--behavior", help="Behaviour of all rows, where the file has no such column.")
]
Target = Annotated[str | None, typer.Option("--target", help="The behaviour to recommend for; others are auxiliary.")]
Negative = Annotated[
    list[str] | None, typer.Option("--negative", help="A behaviour that speaks against the item; repeatable.")
]
NoMask = Annotated[
    list[str] | None,
    typer.Option("--no-mask", metavar="NAME", help="A behaviour whose items stay in the ranking; repeatable."),
]


def source_of(
    path: str,
    *,
    valid: str | None = None,
    test: str | None = None,
    format: str = "auto",  # noqa: A002
    columns: list[str] | None = None,
    time_unit: str | None = None,
    separator: str | None = None,
    no_quotes: bool = False,
    behavior: str | None = None,
) -> Source:
    """The source that the flags describe. Raises ConfigError for a flag that has not the right form."""
    from macrorec.data.sources.source import Source

    mapping: dict[str, str] = {}
    for entry in columns or []:
        ours, equals, theirs = entry.partition("=")
        if not equals:
            raise ConfigError(f"--column takes OURS=THEIRS, such as user_id=customer; got {entry!r}")
        mapping[ours.strip()] = theirs
    if time_unit not in (None, "s", "ms"):
        raise ConfigError(f"--time-unit is {time_unit!r}; allowed are s and ms")
    return Source(
        path=path,
        valid=valid,
        test=test,
        format=format,
        columns=mapping,
        time_unit=time_unit,  # type: ignore[arg-type]
        separator=separator,
        quoted=not no_quotes,
        behavior=behavior,
    )


def behaviors_of(
    counts: dict[str, int], target: str | None, negative: list[str] | None, no_mask: list[str] | None = None
) -> tuple[Behavior, ...]:
    """The schema of a log whose behaviours have ``counts`` rows: ``target`` last, all but ``negative`` auxiliary.

    Without ``target``, the rarest behaviour is it, for a funnel narrows. All but ``no_mask`` mask.
    """
    from macrorec.data.log import Behavior

    if not counts:
        if target or negative or no_mask:
            raise ConfigError("--target, --negative and --no-mask need a log with a behaviour column")
        return ()
    for name in (*([target] if target else []), *(negative or []), *(no_mask or [])):
        if name not in counts:
            raise ConfigError(f"the log has no behaviour {name!r}; it has {', '.join(map(repr, counts))}")
    against = set(negative or [])
    if target in against:
        raise ConfigError(f"the behaviour {target!r} cannot be both --target and --negative")
    rest = [name for name in sorted(counts, key=lambda name: (-counts[name], name)) if name not in against]
    if not rest:
        raise ConfigError("every behaviour of the log is --negative; one must be left as the target")
    last = target or rest[-1]
    others = [name for name in (*sorted(against), *rest) if name != last]

    def behavior(name: str) -> Behavior:
        role: Role = "target" if name == last else "negative" if name in against else "auxiliary"
        return Behavior(name=name, role=role, mask=name not in (no_mask or []))

    return tuple(behavior(name) for name in (*others, last))


def noted(source: Source) -> tuple[str, ...]:
    """Say what was inferred about the file, on standard error; returns the lines."""
    from macrorec.data.sources.source import inspect

    notes = inspect(source).notes
    for line in notes:
        note(f"note: {line}")
    return notes


def declared(
    source: Source, target: str | None, negative: list[str] | None, no_mask: list[str] | None = None
) -> Source:
    """``source`` with the behaviours that the flags and the log's rows say; tells which is taken to be the target."""
    from macrorec.data.sources.source import behaviors_in

    counts = behaviors_in(source)
    behaviors = behaviors_of(counts, target, negative, no_mask)
    if len(behaviors) > 1 and target is None:
        note(f"note: the target behaviour is taken to be {behaviors[-1].name!r}, the rarest; --target names another")
    return replace(source, behaviors=behaviors)


def prepared(source: Source, config: Any) -> Prepared:
    """All parts of ``source``, prepared as ``config`` says."""
    from macrorec.data.prepare import prepare
    from macrorec.data.sources.source import read

    frames = {"train": read(source)}
    if source.valid is not None:
        frames["valid"] = read(source, "valid")
    if source.test is not None:
        frames["test"] = read(source, "test")
    return prepare(frames, source.behaviors, config)
