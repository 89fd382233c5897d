"""Which verbs put results on file and on the page?"""

from __future__ import annotations

import json as json_module
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from macrorec.cli import sigterm
from macrorec.cli.options import Device, Json
from macrorec.cli.output import answer, cells, note, table
from macrorec.cli.target import Root, Sets, Target, Threads, resolve, seeds_of

Results = Annotated[Path, typer.Option("--results", help="The folder of result files.")]
Page = Annotated[Path, typer.Option("--page", help="The page made from them; plots stand beside it.")]
COUNTS: tuple[Literal["all", "warm"], ...] = ("all", "warm")
Seeds = Annotated[str, typer.Option("--seeds", help="Seeds, with commas.")]


def results(results: Results = Path("results"), page: Page = Path("docs/results.md"), json: Json = False) -> None:
    """Make docs/results.md, and the plots in docs/plots, from the result files.

    Example: macrorec results
    """
    from macrorec.errors import DataError

    if not results.is_dir():
        raise DataError(f"there is no folder {str(results)!r}; --results names the one that holds the result files")
    write_page(results, page)
    answer({"page": str(page)}, json, [f"wrote {page}"])


def reproduce(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Recipes.")],
    seeds: Seeds = "0",
    sets: Sets = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="NAME", help="Intervals of the difference to this recipe."),
    ] = None,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Also without each part of the model, against the whole.")
    ] = False,
    device: Device = "cpu",
    root: Root = Path("runs"),
    results: Results = Path("results"),
    page: Page = Path("docs/results.md"),
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Run recipes, or variants of them, with several seeds, and put their results on file and on the page.

    Example: macrorec reproduce ease-ml-100k-u1 gfcf-ml-100k-u1 --seeds 0,1,2
    """
    from macrorec.errors import ConfigError

    wanted = [(name, *(sets or [])) for name in names]
    if ablations:
        if len(names) > 1 or sets or against:
            raise ConfigError("--ablations takes one recipe as it is, without --set and --against")
        against, wanted = names[0], [*wanted, *((names[0], part) for part in _parts(names[0]))]
    every = dict.fromkeys([*([(against,)] if against else []), *wanted])
    protocols = {label: str(resolve(label[0], list(label[1:]), None)[1].eval.protocol) for label in every}
    for label in wanted:
        if against and {protocols[label], protocols[against,]} not in ({"ctr"}, {"ranking"}):
            raise ConfigError(
                f"--against compares clicks, or rankings: {against} measures something else than {label[0]}"
            )
    records: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for name, *changed in every:
        place = results / ("variants" if changed else "recipes") / file_name(name, changed)
        records[name, *changed] = [
            recorded(name, changed, seed, place.with_name(f"{place.name}-{seed}.json"), device, root, threads)
            for seed in seeds_of(seeds)
        ]
    for name, *changed in wanted:
        if against and (name, *changed) != (against,):
            words = [name, *(word for change in changed for word in ("--set", change)), "--seeds", seeds]
            place = results / "comparisons" / f"{file_name(name, changed)}-against-{file_name(against, [])}"
            command = shlex.join(["macrorec", "reproduce", *words, "--against", against])
            clicked = protocols[against,] == "ctr"
            _compare(records[name, *changed], records[against,], root, place, command, clicked=clicked)
    write_page(results, page)
    rows = [row for label in wanted for row in records[label]]
    lines = [*table(_tested(rows)), "", f"wrote {page}"]
    answer(
        {"page": str(page), "results": [{k: r[k] for k in ("recipe", "seed", "metrics")} for r in rows]}, json, lines
    )


def sweep(
    target: Target,
    key: Annotated[
        str | None, typer.Option("--key", help="The setting, such as model.tau.  [default: all that the recipe names]")
    ] = None,
    values: Annotated[str | None, typer.Option("--values", help="Its values, with commas.")] = None,
    seeds: Seeds = "0,1,2",
    sets: Sets = None,
    device: Device = "cpu",
    root: Root = Path("runs"),
    results: Results = Path("results"),
    page: Page = Path("docs/results.md"),
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Run a recipe over values of one setting and several seeds; put a table and a plot of it on the page.

    Without --key and --values: over those that the recipe names for a study, one setting after the other.

    Example: macrorec sweep lightgcn-ml-100k --key model.n_layers --values 1,2,3,4 --seeds 0,1,2
    """
    from macrorec.files import write_json
    from macrorec.report import sweeps

    changed, lines, kept = sets or [], [], {}
    studies = {own: _cases(target, changed, own, of) for own, of in _studies(target, key, values).items()}
    for own, cases in studies.items():
        runs = _swept(target, cases, seeds_of(seeds), device, root, threads)
        words = ["--key", own, "--values", ",".join(text for text, _, _ in cases), "--seeds", seeds]
        words += [word for setting in changed for word in ("--set", setting)]
        name = " ".join([resolve(target, changed, None)[0], *changed])
        result = sweeps.summed(name, own, runs, shlex.join(["macrorec", "sweep", target, *words]))
        place = results / "sweeps" / f"{sweeps.file_name(result['recipe'], own)}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, result)
        kept[str(place)] = result
        metric, parts = result["metric"], [part for part in ("valid", "test") if result["values"][0][part]]
        told = [
            [str(entry["value"]), *(f"{entry[part][metric]['mean']:.4f}" for part in parts)]
            for entry in result["values"]
        ]
        lines += [*table([[own, *(f"{metric}, {part}" for part in parts)], *told]), ""]
    write_page(results, page)
    files = [{**result, "file": place} for place, result in kept.items()]
    answer(files[0] if key else {"sweeps": files}, json, [*lines, f"wrote {', '.join(kept)} and {page}"])


# --- what the verbs share --------------------------------------------------------------------------------------------


def _tested(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A table of the test metrics of records, head first; cohorts of held-out items stand beside the whole."""
    from macrorec.eval.metrics import COHORTS, by_cohort

    found = [(row, name, own) for row in rows for name, own in by_cohort(row["metrics"]["test"]).items()]
    kinds = [kind for kind in ("all", *COHORTS) if any(kind in own for _, _, own in found)]
    head = ["recipe", "seed", "metric", *("test" if kind == "all" else kind for kind in kinds)]
    return [head, *([row["recipe"], row["seed"], name, *cells(own, kinds)] for row, name, own in found)]


def _studies(target: str, key: str | None, values: str | None) -> Mapping[str, str]:
    """The settings to vary, each with its values. Raises ConfigError where neither the command nor the recipe says."""
    from macrorec import recipes
    from macrorec.errors import ConfigError

    if (key is None) != (values is None):
        raise ConfigError("--key and --values belong together: give both, or none for the studies that a recipe names")
    if key is not None and values is not None:
        return {key: values}
    named = recipes.sweeps(target) if not target.endswith(".toml") else {}
    if not named:
        raise ConfigError(
            f"{target} names no study; give --key and --values, such as --key train.lr --values 0.001,0.01"
        )
    return named


def _cases(target: str, changed: list[str], key: str, values: str) -> list[tuple[str, Any, list[str]]]:
    """(as written, as read, all settings) of each value. Raises ConfigError for what no configuration takes."""
    from macrorec import configs

    cases = []
    for text in (value.strip() for value in values.split(",")):
        settings = [*changed, f"{key}={text}"]
        read = configs.plain(resolve(target, settings, None)[1])
        for part in key.split("."):
            read = read[part]
        cases.append((text, read, settings))
    return cases


def _swept(
    target: str,
    cases: Sequence[tuple[str, Any, list[str]]],
    seeds: Sequence[int],
    device: str,
    root: Path,
    threads: int | None,
) -> list[tuple[Any, dict[str, Any]]]:
    """(value, record) of each run, the seeds of a value together."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run.json"
        return [
            (value, recorded(target, settings, seed, place, device, root, threads))
            for _, value, settings in cases
            for seed in seeds
        ]


def _parts(name: str) -> tuple[str, ...]:
    """The ablations of a recipe. Raises ConfigError where it names none."""
    from macrorec import recipes
    from macrorec.errors import ConfigError

    parts = recipes.ablations(name)
    if not parts:
        raise ConfigError(f"--ablations: {name} names no part that could be left out")
    return parts


def file_name(target: str, sets: Sequence[str]) -> str:
    """A name for the results of a recipe with settings changed."""
    name = Path(target).stem if target.endswith(".toml") else target
    return re.sub(r"[^\w.=-]+", "-", "-".join([name, *sets]))


def recorded(
    target: str, sets: list[str], seed: int, place: Path, device: str, root: Path, threads: int | None
) -> dict[str, Any]:
    """The record of a run, written to ``place`` by a process of its own. Exits as that process does if it fails."""
    note(f"{file_name(target, sets)}, seed {seed}")
    changes = [word for change in sets for word in ("--set", change)]
    options = ["--seed", str(seed), "--device", device, "--root", str(root), "--out", str(place)]
    failed = alone("run", target, *changes, *options, *(["--threads", str(threads)] if threads else []))
    if failed:
        raise typer.Exit(failed)
    record: dict[str, Any] = json_of(place)
    return record


def _compare(
    rows: list[dict[str, Any]], others: list[dict[str, Any]], root: Path, place: Path, command: str, *, clicked: bool
) -> None:
    """Write the intervals between two groups of runs: of AUC over all and over warm impressions, or of a ranking."""
    from macrorec.files import write_json
    from macrorec.report.comparisons import compare_runs
    from macrorec.store import Run

    first, second = ([Run.open(root / row["run"]) for row in group] for group in (rows, others))
    place.parent.mkdir(parents=True, exist_ok=True)
    for count in COUNTS if clicked else COUNTS[:1]:
        found = compare_runs(first, second, metrics=["auc"] if clicked else None, count=count)
        write_json(place.with_name(f"{place.name}-{count}.json"), {**found, "command": command})


def write_page(results: Path, page: Path) -> None:
    """Make the page and its plots from the files under ``results``."""
    from macrorec.report.results import markdown, pictures

    write_text(page, markdown(results))
    for name, drawing in pictures(results).items():
        write_text(page.parent / "plots" / f"{name}.svg", drawing)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    from macrorec.files import write

    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def alone(*arguments: str) -> int:
    """Run the command line in a process of its own, so that its peak memory is its own; answers the exit code.

    Ctrl-C reaches that process, too, and SIGTERM is passed on; it is waited for, since it writes a checkpoint.
    """
    process = subprocess.Popen([sys.executable, "-m", "macrorec", *arguments], stdout=subprocess.DEVNULL)
    try:
        return process.wait()
    except KeyboardInterrupt:
        if sigterm.received.is_set():
            process.terminate()
        process.wait()
        raise


def json_of(path: Path) -> Any:
    """The content of a JSON file that we have just written."""
    return json_module.loads(path.read_text(encoding="utf-8"))
