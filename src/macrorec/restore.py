"""What can be done with a finished run? Restore its model, measure it again, export it as a bundle, sum it up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from macrorec import configs
from macrorec.api import Model
from macrorec.data.log import Split
from macrorec.errors import ConfigError, DataError
from macrorec.eval.evaluate import Evaluation, evaluate
from macrorec.graph.bipartite import Graph, from_split
from macrorec.inputs import read_split
from macrorec.run import RunConfig, build, known_device, same_data
from macrorec.store import Bundle, Run


def config_of(result: Run) -> RunConfig:
    """The configuration of a run."""
    return configs.parse(RunConfig, result.config)


def restore(result: Run) -> tuple[Model, Graph, Split, RunConfig]:
    """A finished run's model, the graph and split it was fitted on last, and its configuration.

    Raises DataError if the data are no longer those of the run.
    """
    config = config_of(result)
    parts = read_split(config.source, config.prepare, config.split, seed=config.seed)
    same_data(result, parts)
    last = parts.with_valid_in_train() if config.refit and len(parts.valid) else parts
    graph = from_split(last)
    model = build(config, graph)
    model.load_state_dict(result.weights(), strict=True)
    return model.eval(), graph, last, config


def evaluate_run(result: Run, part: str = "test", metrics: tuple[str, ...] = (), *, device: str = "cpu") -> Evaluation:
    """Measure a finished run again, with other ``metrics`` if given.

    Raises DataError for the valid part of a run that was refitted on it.
    """
    on = known_device(device)
    if part not in ("valid", "test"):
        raise ConfigError(f"unknown part {part!r}: legal are valid and test")
    model, _, parts, config = restore(result)
    if part == "valid" and config.refit:
        raise DataError(
            f"the weights of {result.folder} have learned from valid; its metrics there stand in metrics.json"
        )
    wanted = replace(config.eval, metrics=metrics) if metrics else config.eval
    return evaluate(model.to(on), parts, "valid" if part == "valid" else "test", wanted, device=str(on))


def export(result: Run, folder: str | Path) -> Path:
    """Write the bundle of a finished run to ``folder``."""
    model, graph, parts, config = restore(result)
    return Bundle.save(folder, model, graph, parts.users, parts.items, {"run": result.name, **configs.plain(config)})


def summary(result: Run, recipe: str) -> dict[str, Any]:
    """What a program wants to know of a finished run."""
    origin = result.provenance
    return {
        "recipe": recipe,
        "seed": result.config["seed"],
        "run": str(result.folder),
        "metrics": result.metrics,
        "seconds": origin["seconds"],
        "peak_rss_bytes": origin["peak_rss_bytes"],
    }
