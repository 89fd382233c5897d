"""Which verb tells what a few items of a new user are worth?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from macrorec.cli.options import Device, Json
from macrorec.cli.output import answer, note, table
from macrorec.cli.results import Page, Results, Seeds, file_name, write_page
from macrorec.cli.target import Sets, Target, Threads, command_of, limit_threads, resolve, seeds_of


def coldstart(
    target: Target,
    items: Annotated[str, typer.Option("--items", help="How many items a new user gives, with commas.")] = "1,3,5,10",
    share: Annotated[float, typer.Option("--share", help="Share of the users of test to hold out of train.")] = 0.2,
    rules: Annotated[
        str, typer.Option("--rules", help="Models beside it, with commas: as their recipes for the data set are set.")
    ] = "popular,userknn,ease",
    seeds: Seeds = "0",
    sets: Sets = None,
    device: Device = "cpu",
    results: Results = Path("results"),
    page: Page = Path("docs/results.md"),
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Hold users out of train, and rank for them from a few of their items: folded in, and after retraining.

    The model is fitted once without them, and once anew for each number of items. A table and a plot go on the page.

    Example: macrorec coldstart bpr-ml-100k-u1 --items 1,3,5,10 --seeds 0
    """
    limit_threads(threads)
    from macrorec.coldstart import study
    from macrorec.files import write_json

    name, config = resolve(target, sets or [], None)
    counts = numbers_of(items)
    beside = {rule: rule_of(rule, name, config) for rule in rules.split(",") if rule.strip()}
    found = study(config, beside, items=counts, share=share, seeds=seeds_of(seeds), device=device, note=note)
    words = ["--items", items, "--share", f"{share:g}", "--rules", rules, "--seeds", seeds]
    command = command_of("coldstart", target, sets or [], config.seed, *words).rpartition(" --seed ")[0]
    result = {"recipe": " ".join([name, *(sets or [])]), **found, "command": command}
    place = results / "coldstart" / f"{file_name(target, sets or [])}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, result)
    write_page(results, page)
    metric = result["metric"]
    body = [[way, *(f"{row[metric]['mean']:.4f}" for row in rows)] for way, rows in result["ways"].items()]
    lines = [*table([[f"{metric}, by items given", *map(str, result["items"])], *body]), ""]
    lines += [f"users {', '.join(f'{n:,}' for n in result['users'])}; wrote {place} and {page}"]
    answer({**result, "file": str(place)}, json, lines)


def numbers_of(text: str) -> list[int]:
    """The numbers in ``1,3,5``."""
    from macrorec.errors import ConfigError

    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(f"--items takes whole numbers with commas, such as 1,3,5,10; got {text!r}")
    return [int(part) for part in text.split(",")]


def rule_of(rule: str, name: str, config: Any) -> Any:
    """The settings of ``rule`` in its recipe for the data set of the recipe ``name``; its defaults without one."""
    from macrorec import configs, models, recipes

    rule = rule.strip()
    recipe = f"{rule}-{name.removeprefix(configs.model_name(config.model) + '-')}"
    return recipes.load(recipe).model if recipe in recipes.names() else models.load(rule).Config()
