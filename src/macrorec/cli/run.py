"""Which verbs make, measure, tune and export runs?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from macrorec.cli.options import Device, Json
from macrorec.cli.output import answer, cells, note, table
from macrorec.cli.target import OwnSeed, Root, Sets, Target, Threads, command_of, limit_threads, resolve, seeds_of

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write the result to this JSON file, too.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Metrics = Annotated[list[str] | None, typer.Option("--metrics", help="Measure these, such as recall@50; repeatable.")]
Mask = Annotated[
    str | None,
    typer.Option("--mask", help="Rank without items known by these behaviours.", metavar="behaviors|every|none"),
]


def run(
    target: Target,
    sets: Sets = None,
    seed: OwnSeed = None,
    device: Device = "cpu",
    root: Root = Path("runs"),
    out: Out = None,
    force: Annotated[bool, typer.Option("--force", help="Run anew, even where the run is finished.")] = False,
    threads: Threads = None,
    tensorboard: Annotated[Path | None, typer.Option("--tensorboard", help="Log to this folder, too.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fit and evaluate a recipe or a TOML file.

    A finished run is answered from its folder; an interrupted one goes on where it was.

    Example: macrorec run ease-ml-100k-u1 --set model.l2=300
    """
    limit_threads(threads)
    from macrorec.files import write_json
    from macrorec.report.results import record
    from macrorec.restore import summary
    from macrorec.run import run as compute
    from macrorec.train.progress import reporter

    name, config = resolve(target, sets or [], seed)
    shows = reporter(quiet=quiet)
    done = compute(config, name=name, root=root, device=device, progress=shows, force=force, tensorboard=tensorboard)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, record(done, name, command_of("run", target, sets or [], config.seed)))
    answer(summary(done, name), json, shown(done))


def evaluate(
    folder: Folder,
    part: Annotated[str, typer.Option("--part", help="test or valid.")] = "test",
    metrics: Metrics = None,
    mask: Mask = None,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="Rankings: by train degree of users and items, too.")
    ] = False,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Evaluate a finished run again; its files stay as they are.

    The split is made again from the run's configuration, and must be the one that the run began with. Clicks are broken
    down by length of history in any case.

    Example: macrorec evaluate runs/ease-ml-100k-u1-0-1a2b3c4d --metrics recall@50
    """
    from macrorec.restore import evaluate_run
    from macrorec.store import Run

    measured = evaluate_run(Run.open(folder), part, tuple(metrics or ()), mask=mask, device=device)
    result = {
        "run": str(folder),
        "part": part,
        "metrics": measured.metrics,
        "counts": measured.counts,
        "mask": measured.mask,
        "seconds": measured.seconds,
    }
    lines = [*table(by_part({part: measured.metrics})), "", f"{counted(measured.counts)}; {measured.mask}"]
    if measured.breakdown is not None and measured.reliability is not None:
        result |= {"cohorts": measured.breakdown.to_dicts(), "reliability": measured.reliability.to_dicts()}
        lines += [
            "",
            *table([measured.breakdown.columns, *(cells(row) for row in measured.breakdown.iter_rows(named=True))]),
        ]
    if measured.degrees is not None:
        result["degrees"] = measured.degrees.to_dicts()
        lines += by_degree(measured.degrees) if breakdown else []
    answer(result, json, lines)


def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of the bundle.")],
    ranker: Annotated[
        Path | None,
        typer.Option("--ranker", metavar="RUN", help="A run of a ranker, to rank what the first one retrieves."),
    ] = None,
    json: Json = False,
) -> None:
    """Turn a run into a bundle that answers requests.

    Example: macrorec export runs/lightgcn-shop-0-1a2b3c4d shop.bundle --ranker runs/macgnn-shop-0-5e6f7a8b
    """
    from macrorec.restore import export as write
    from macrorec.store import Run

    place = write(Run.open(folder), out, ranker=None if ranker is None else Run.open(ranker))
    inside = sorted(path for path in place.rglob("*") if path.is_file())
    sizes = {path.relative_to(place).as_posix(): path.stat().st_size for path in inside}
    lines = [f"wrote {place}", *table([["file", "bytes"], *([key, value] for key, value in sizes.items())])]
    answer({"bundle": str(place), "files": sizes}, json, lines)


def tune(
    target: Target,
    trials: Annotated[int, typer.Option("--trials", min=1, help="At most so many trials.")] = 20,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0, help="Start no trial after so many.")] = None,
    space: Annotated[
        Path | None, typer.Option("--space", help="A TOML file: dotted key = choices or range; or a search's result.")
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="What to search for, on valid.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Each trial is a mean over these seeds.")] = None,
    sets: Sets = None,
    seed: OwnSeed = None,
    device: Device = "cpu",
    root: Root = Path("runs"),
    out: Out = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Search a model's settings on the validation part; the best one is refitted and tested once.

    A space in TOML: "model.l2" = {low = 1.0, high = 1e4, log = true}. A search
    that was stopped goes on from its last trial when it is asked for again.

    Example: macrorec tune ease-ml-100k-u1 --trials 20
    """
    limit_threads(threads)
    from macrorec import recipes
    from macrorec.files import write_json
    from macrorec.tune import read_space
    from macrorec.tune import tune as search

    name, config = resolve(target, sets or [], seed)
    wanted = read_space(space) if space else recipes.space(name) if name in recipes.names() else {}
    result = search(
        config,
        wanted,
        name=name,
        trials=trials,
        seconds=seconds,
        metric=metric,
        seeds=seeds_of(seeds) if seeds is not None else None,
        root=root,
        device=device,
        note=note,
    )
    budget = ["--trials", str(trials), *(["--seconds", f"{seconds:g}"] if seconds is not None else [])]
    options = {"--space": space, "--metric": metric, "--seeds": seeds}
    chosen_by = [word for key, value in options.items() if value for word in (key, str(value))]
    result["command"] = command_of("tune", target, sets or [], config.seed, *budget, *chosen_by)
    place = out or Path("results/tuning") / f"{name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, result)
    best, spent = result["best"], result["spent"]
    chosen = [[key, value] for key, value in best["settings"].items()]
    tested = by_part({"test": result["run"]["metrics"]["test"]})
    lines = [
        f"best {result['metric']} on valid: {best['value']:.4f} ({spent['trials']} trials in {spent['seconds']:.0f} s)",
        *table([["setting", "value"], *chosen]),
        "",
        "refitted, on test:",
        *table(tested),
        "",
        f"run {result['run']['run']}; search {place}",
    ]
    answer({**result, "file": str(place)}, json, lines)


# --- what the verbs share --------------------------------------------------------------------------------------------


def counted(counts: dict[str, int]) -> str:
    """Counts in words: ``users 943, relevant 1,000``."""
    return ", ".join(f"{key.replace('_', ' ').replace(':', ' of ')} {value:,}" for key, value in counts.items())


def by_part(measured: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """A table of metrics by part, head first; behind a part stand the cohorts of its held-out items, if it has any."""
    from macrorec.eval.metrics import COHORTS, by_cohort

    parts = {part: by_cohort(values) for part, values in measured.items() if values}
    columns = [
        (part, kind)
        for part, rows in parts.items()
        for kind in ("all", *COHORTS)
        if any(kind in row for row in rows.values())
    ]
    names = dict.fromkeys(name for rows in parts.values() for name in rows)
    head = ["metric", *(part if kind == "all" else kind for part, kind in columns)]
    found = [
        {(part, kind): value for part in parts for kind, value in parts[part].get(name, {}).items()} for name in names
    ]
    return [head, *([name, *cells(own, columns)] for name, own in zip(names, found, strict=True))]


def by_degree(found: Any) -> list[str]:
    """A table of metrics over all held-out items by train degree of users, and one by that of items."""
    whole = [name for name in found.columns if ":" not in name and name not in ("side", "degree")]
    lines = []
    for side, rows in found.group_by("side", maintain_order=True):
        head = [f"degree of the {side[0]}", *whole]
        lines += ["", *table([head, *([row["degree"], *cells(row, whole)] for row in rows.iter_rows(named=True))])]
    return lines


def shown(done: Any) -> list[str]:
    """A finished run for a reader: metrics by part, time, memory, and the mask policy."""
    origin, metrics = done.provenance, done.metrics
    seconds = origin["seconds"]
    spent = f"train {seconds['train']:.1f} s" + (
        f", evaluate {seconds['evaluate']:.1f} s" if seconds["evaluate"] else ""
    )
    return [
        *table(by_part({part: metrics[part] for part in ("valid", "test")})),
        "",
        f"test: {counted(origin['counts'])}; {origin['mask']}" if metrics["test"] else "test: nothing held out",
        f"{spent}, peak memory {origin['peak_rss_bytes'] / 2**20:,.0f} MiB",
        f"run {done.folder}",
    ]
