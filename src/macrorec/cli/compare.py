"""Which verb says whether one group of runs is better than another?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from macrorec.cli.options import Json
from macrorec.cli.output import answer, note, table

HEAD = ["metric", "first", "second", "difference", "95 % interval", "p", "users"]


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of finished runs, or 'PATTERNS'.")],
    against: Annotated[
        list[str] | None, typer.Option("--against", metavar="RUN", help="What they are compared with; repeatable.")
    ] = None,
    part: Annotated[str, typer.Option("--part", help="test or valid.")] = "test",
    metrics: Annotated[
        list[str] | None, typer.Option("--metrics", "--metric", help="Compare these, such as auc; repeatable.")
    ] = None,
    samples: Annotated[
        str, typer.Option("--samples", help="Clicks: all impressions, or warm ones.", metavar="all|warm")
    ] = "all",
    resamples: Annotated[int, typer.Option("--resamples", min=1, help="Bootstrap resamples of users.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the resampling.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Write the result to this JSON file, too.")] = None,
    json: Json = False,
) -> None:
    """Compare two runs, or two groups of runs that differ by their seed, with intervals of a bootstrap over users.

    A group counts by its mean; both see the same resampled users. AUC is that of all impressions of a resample.

    Example: macrorec compare 'runs/macgnn-ml-100k-*' --against 'runs/din-ml-100k-*' --metric auc
    """
    from macrorec.errors import ConfigError
    from macrorec.files import write_json
    from macrorec.report.comparisons import compare_runs, runs_at, same_data

    if against is None:
        if len(runs) != 2:
            raise ConfigError(f"compare takes two runs, or RUN... --against RUN...; got {len(runs)} and no --against")
        first, second = runs_at(runs[:1]), runs_at(runs[1:])
    else:
        first, second = runs_at(runs), runs_at(against)
    if samples not in ("all", "warm"):
        raise ConfigError(f"--samples is all or warm, not {samples!r}")
    count: Literal["all", "warm"] = "warm" if samples == "warm" else "all"
    if not same_data([*first, *second]):
        note("the runs were made on different data or splits: only users that all measured are compared")
    result = compare_runs(first, second, part=part, metrics=metrics, count=count, resamples=resamples, seed=seed)
    others = [word for run in (against or runs[1:]) for word in ("--against", run)]
    settings = ["--part", part, *(word for name in metrics or () for word in ("--metric", name))]
    settings += ["--samples", samples, "--resamples", str(resamples), "--seed", str(seed)]
    result["command"] = shlex.join(["macrorec", "compare", *(runs if against else runs[:1]), *others, *settings])
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
    rows = [
        [
            row["metric"],
            f"{row['a']:.4f}",
            f"{row['b']:.4f}",
            f"{row['difference']:+.4f}",
            f"{row['low']:+.4f} .. {row['high']:+.4f}",
            f"{row['p']:.4f}",
            row["users"],
        ]
        for row in result["metrics"]
    ]
    answer(result, json, [*table([HEAD, *rows]), "", f"{len(first)} against {len(second)} runs, {samples} impressions"])
