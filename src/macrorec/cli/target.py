"""Which run does a command mean, with which settings changed, and how many threads may it take?"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from macrorec.run import RunConfig

Target = Annotated[str, typer.Argument(metavar="NAME|FILE.toml", help="A recipe, or a configuration in TOML.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: model.dim=32.")]
OwnSeed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of every random choice.  [default: its own]")]
Root = Annotated[Path, typer.Option("--root", help="Where the folders of runs stand.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads to compute with.  [default: all cores]")]


def resolve(target: str, sets: list[str], seed: int | None) -> tuple[str, RunConfig]:
    """The name and the configuration of a recipe or a TOML file, with settings changed."""
    from macrorec import configs, recipes
    from macrorec.run import RunConfig

    if target.endswith(".toml"):
        name, written = Path(target).stem, configs.read_toml(Path(target))
        start = configs.plain(configs.parse(RunConfig, written))
    else:
        name, start = target, configs.plain(recipes.load(target))
    if seed is not None:
        start["seed"] = seed
    return name, configs.parse(RunConfig, configs.assign(start, sets, RunConfig))


def command_of(verb: str, target: str, sets: list[str], seed: int, *more: str) -> str:
    """The command line that makes this result."""
    changes = [word for change in sets for word in ("--set", change)]
    return shlex.join(["macrorec", verb, target, *more, *changes, "--seed", str(seed)])


def seeds_of(text: str) -> list[int]:
    """The seeds in ``0,1,2``."""
    from macrorec.errors import ConfigError

    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(f"--seeds takes whole numbers with commas, such as 0,1,2; got {text!r}")
    return [int(part) for part in text.split(",")]


def limit_threads(n: int | None) -> None:
    """Bound the threads of all libraries; to be called before they are imported."""
    if n is None:
        return
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        os.environ[f"{name}_NUM_THREADS"] = str(n)
    os.environ["POLARS_MAX_THREADS"] = str(n)
    import torch

    torch.set_num_threads(n)
