"""Which verbs put results on file and on the page?"""

from __future__ import annotations

import json as json_module
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from macrorec.cli import sigterm
from macrorec.cli.options import Device, Json
from macrorec.cli.output import answer, note, table
from macrorec.cli.target import Root, Threads, resolve

Results = Annotated[Path, typer.Option("--results", help="The folder of result files.")]
Page = Annotated[Path, typer.Option("--page", help="The page made from them.")]


def results(results: Results = Path("results"), page: Page = Path("docs/results.md"), json: Json = False) -> None:
    """Make docs/results.md from the result files.

    Example: macrorec results
    """
    from macrorec.errors import DataError
    from macrorec.report.results import markdown

    if not results.is_dir():
        raise DataError(f"there is no folder {str(results)!r}; --results names the one that holds the result files")
    write_text(page, markdown(results))
    answer({"page": str(page)}, json, [f"wrote {page}"])


def reproduce(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Recipes.")],
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, with commas.")] = "0",
    device: Device = "cpu",
    root: Root = Path("runs"),
    results: Results = Path("results"),
    page: Page = Path("docs/results.md"),
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Run recipes with several seeds, and put their results on file and on the page.

    Example: macrorec reproduce ease-ml-100k-u1 gfcf-ml-100k-u1 --seeds 0,1,2
    """
    from macrorec.errors import ConfigError
    from macrorec.report.results import markdown

    if not all(part.strip().isdecimal() for part in seeds.split(",")):
        raise ConfigError(f"--seeds takes whole numbers with commas, such as 0,1,2; got {seeds!r}")
    jobs = [(target, *resolve(target, [], int(seed))) for target in names for seed in seeds.split(",")]
    rows: list[dict[str, Any]] = []
    for target, name, config in jobs:
        note(f"{name}, seed {config.seed}")
        place = results / "recipes" / f"{name}-{config.seed}.json"
        options = ["--seed", str(config.seed), "--device", device, "--root", str(root), "--out", str(place)]
        code = alone("run", target, *options, *(["--threads", str(threads)] if threads else []))
        if code:
            raise typer.Exit(code)
        rows.append(json_of(place))
    write_text(page, markdown(results))
    shown_rows = [
        [row["recipe"], row["seed"], metric, f"{value:.4f}"]
        for row in rows
        for metric, value in row["metrics"]["test"].items()
    ]
    lines = [*table([["recipe", "seed", "metric", "test"], *shown_rows]), "", f"wrote {page}"]
    answer(
        {"page": str(page), "results": [{k: r[k] for k in ("recipe", "seed", "metrics")} for r in rows]}, json, lines
    )


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
