"""What can be done with a finished run? Restore its model, measure it again, export it as a bundle, sum it up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from macrorec import configs
from macrorec.api import Model, Ranker
from macrorec.bundle import RANKER
from macrorec.clusters import clusters_of
from macrorec.data.log import Split
from macrorec.errors import ConfigError, DataError
from macrorec.eval.evaluate import Evaluation, evaluate
from macrorec.eval.links import LinkPairs, load_pairs
from macrorec.eval.ranking import MaskPolicy
from macrorec.graph.bipartite import Graph
from macrorec.graph.features import FeatureSet
from macrorec.inputs import read_split, titles_of
from macrorec.run import (
    RunConfig,
    build,
    features_of,
    graph_of,
    known_device,
    pairs_of,
    same_data,
    same_features,
)
from macrorec.store import Bundle, Run


def config_of(result: Run) -> RunConfig:
    """The configuration of a run."""
    return configs.parse(RunConfig, result.config)


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A finished run, as if it had just been fitted."""

    model: Model
    """On the CPU, in evaluation mode."""
    graph: Graph
    """The graph that it was fitted on last."""
    parts: Split
    """Likewise."""
    features: FeatureSet | None
    """Likewise; None but for rankers."""
    config: RunConfig


def restore(result: Run) -> Restored:
    """A finished run's model, and what it was fitted on. Raises DataError if the data are not those of the run."""
    config = config_of(result)
    parts = read_split(config.source, config.prepare, config.split, seed=config.seed)
    same_data(result, parts)
    last = parts.with_valid_in_train() if config.refit and len(parts.valid) else parts
    features = features_of(config, last)
    same_features(result, features)
    graph = graph_of(last, features)
    model = build(config, graph)
    model.load_state_dict(result.weights(), strict=True)
    return Restored(model.eval(), graph, last, features, config)


def evaluate_run(
    result: Run,
    part: str = "test",
    metrics: tuple[str, ...] = (),
    *,
    mask: str | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure a finished run again, with other ``metrics`` or under another ``mask`` if given; leaves its files alone.

    Raises DataError for the valid part of a run that was refitted on it, ConfigError for a mask that is no policy, or
    that of a run which ranks nothing.
    """
    on = known_device(device)
    policies: dict[str, MaskPolicy] = {policy: policy for policy in get_args(MaskPolicy)}
    if mask is not None and mask not in policies:
        raise ConfigError(f"unknown mask {mask!r}: legal are {', '.join(policies)}")
    if part not in ("valid", "test"):
        raise ConfigError(f"unknown part {part!r}: legal are valid and test")
    found = restore(result)
    config = found.config
    if part == "valid" and config.refit:
        raise DataError(
            f"the weights of {result.folder} have learned from valid; its metrics there stand in metrics.json"
        )
    if mask and config.eval.protocol != "ranking":
        raise ConfigError(f"a mask is for rankings, and {result.folder} was measured by {config.eval.protocol!r}")
    policy = config.eval.mask if mask is None else policies[mask]
    wanted = replace(config.eval, metrics=metrics or config.eval.metrics, mask=policy)
    samples = found.features.samples if found.features else None
    which: Literal["valid", "test"] = "valid" if part == "valid" else "test"
    pairs = saved_pairs(result, found)
    return evaluate(found.model.to(on), found.parts, which, wanted, samples=samples, pairs=pairs, device=str(on))


def saved_pairs(result: Run, found: Restored) -> LinkPairs | None:
    """The pairs that a run of links was measured on, as it saved them; None for other runs."""
    made = pairs_of(found.config, found.parts)
    if made is None:
        return None
    known = {"probe": made.probe, "valid": made.valid, "test": made.test}
    for name in known:
        if (path := result.pairs(name)).is_file():
            known[name] = load_pairs(path, found.parts.train)
    return LinkPairs(**known, drawn=made.drawn)


def export(result: Run, folder: str | Path, *, ranker: Run | None = None) -> Path:
    """Write the bundle of a finished run to ``folder``; with that of a run whose model ranks what this one retrieves.

    Raises ConfigError where the models cannot work together so, DataError if they know no item in common.
    """
    found = restore(result)
    if ranker is None:
        return _write(result, found, folder)
    other = restore(ranker)
    if not isinstance(other.model, Ranker):
        raise ConfigError(f"{ranker.folder} cannot rank: {_name(other)} is no ranker; macrorec models tells which are")
    if isinstance(found.model, Ranker):
        raise ConfigError(f"{result.folder} cannot retrieve for a ranker: {_name(found)} is a ranker itself")
    if not (found.parts.items.numbers(other.parts.items.ids) >= 0).any():
        raise DataError(f"{result.folder} and {ranker.folder} have no item in common: their item ids must be the same")
    with TemporaryDirectory(prefix="macrorec-") as temporary:
        inner = _write(ranker, other, Path(temporary) / RANKER)
        return _write(result, found, folder, inner)


def _name(found: Restored) -> str:
    """The name of its model."""
    return configs.model_name(found.config.model)


def _write(result: Run, found: Restored, folder: str | Path, ranker: Path | None = None) -> Path:
    """The bundle of one run."""
    kept = {"run": result.name, **configs.plain(found.config)}
    titles = titles_of(found.config.source, found.parts.items)
    users, items = found.parts.users, found.parts.items
    clusters = clusters_of(found.model, found.parts)
    fitted = found.model, found.graph, users, items
    return Bundle.save(folder, *fitted, kept, titles=titles, clusters=clusters, ranker=ranker)


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
