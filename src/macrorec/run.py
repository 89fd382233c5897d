"""How does a configuration become results? The whole pipeline: source -> split -> graph -> model -> train -> evaluate.

With ``refit`` a run has two stages: ``fit`` learns from train and is measured, and stopped early, on valid; ``refit``
learns from train and valid for the number of epochs that ``fit`` chose. The last stage is measured on test, once, at
the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch

from macrorec import configs, models, provenance
from macrorec.api import Model, Ranker, TwoTower
from macrorec.clusters import clusters_of
from macrorec.data.log import Split
from macrorec.data.prepare import PrepareConfig
from macrorec.data.sources.source import Source
from macrorec.data.split import SplitConfig
from macrorec.errors import ConfigError, DataError
from macrorec.eval.evaluate import Evaluation, check, evaluate, measure, ranking_task
from macrorec.eval.links import LinkPairs, link_pairs, probes_in, require_vectors
from macrorec.eval.metrics import with_cohorts
from macrorec.eval.ranking import EvalConfig
from macrorec.graph.bipartite import Graph, from_split
from macrorec.graph.features import FeatureConfig, FeatureSet
from macrorec.inputs import LinkSource, Synthetic, read_features, read_probe, read_split
from macrorec.store import Run
from macrorec.train import memory
from macrorec.train.trainer import History, TrainConfig, train


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """All that decides the numbers of a run."""

    source: Source | LinkSource | Synthetic
    """Where the log lies, and what its columns mean."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """Which rows count, and how often."""
    split: SplitConfig
    """What is learned from, chosen by, and tested on."""
    model: Annotated[Any, configs.AnyModel()]
    """The ``Config`` of a model; as text, a table with the model's ``name``."""
    train: TrainConfig
    """How the model is fitted; closed-form models take nothing from it."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """What is measured, and how."""
    features: FeatureConfig | None = None
    """What a ranker knows before each impression; its defaults, where a ranker gives none. For rankers only."""
    seed: int = 0
    """Seed of the split, of the model's initial values, and of all sampling."""
    refit: bool = False
    """Whether the model that is tested learns from valid, too."""

    def __post_init__(self) -> None:
        names = check(self.eval)
        if self.train.monitor is not None and self.train.monitor not in with_cohorts(names):
            raise ConfigError(f"train.monitor is {self.train.monitor!r}, not among eval.metrics: {', '.join(names)}")
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0; got {self.seed}")
        if ranks(self.model) and self.features is None:
            object.__setattr__(self, "features", FeatureConfig())
        if not ranks(self.model) and self.features is not None:
            raise ConfigError(f"features are for rankers, and {configs.model_name(self.model)} is none; leave them out")


def run(
    config: RunConfig,
    *,
    name: str,
    root: str | Path = "runs",
    device: str = "cpu",
    progress: Any = None,
    force: bool = False,
    tensorboard: str | Path | None = None,
) -> Run:
    """The run of ``config`` in ``root``/<name>-<seed>-<hash8>: answered from there if it is finished.

    An interrupted run goes on where its last checkpoint stands; ``force`` starts anew. ``tensorboard`` is a folder to
    log each stage to, under the run's name. Raises ConfigError for settings
    that do not fit together, DataError for the log, ResourceError for memory and disk, UserError if another process
    works in the folder.
    """
    on = known_device(device)
    table = configs.plain(config)
    result = Run(Path(root) / f"{name}-{config.seed}-{configs.hash8(table)}")
    if result.finished and not force:
        return result
    with result.held():
        if force:
            result.clear()
        if not result.finished:
            result.write("config.json", table)
            _complete(result, config, on, progress, None if tensorboard is None else Path(tensorboard) / result.name)
    return result


# --- the steps -------------------------------------------------------------------------------------------------------


def _complete(result: Run, config: RunConfig, on: torch.device, progress: Any, board: Path | None) -> None:
    parts = read_split(config.source, config.prepare, config.split, seed=config.seed)
    origin = _begin(result, parts)
    stages: dict[str, Any] = {}
    has_valid, pairs = len(parts.valid) > 0, pairs_of(config, parts)
    if config.refit and has_valid:
        stages["fit"] = _choose(result, config, parts, on, progress, board)
        settings, last = for_epochs(config.train, stages["fit"]["best_epoch"]), parts.with_valid_in_train()
        features, pairs = features_of(config, last), pairs_of(config, last)
        model, record = fit(
            config,
            last,
            on,
            settings,
            features=features,
            folder=result.stage("refit"),
            progress=progress,
            tensorboard=board and board / "refit",
        )
        stages["refit"] = asdict(record)
    else:
        last, features = parts, features_of(config, parts)
        model, record = fit(
            config,
            parts,
            on,
            features=features,
            validate=watch(config, parts, on, features, pairs),
            folder=result.stage("fit"),
            progress=progress,
            tensorboard=board and board / "fit",
        )
        stages["fit"] = asdict(record)
        if has_valid:
            stages["fit"]["valid"] = _measure(result, model, parts, "valid", config, on, features, pairs).metrics
    tested = _measure(result, model, last, "test", config, on, features, pairs) if len(parts.test) else None
    result.write_weights(model.state_dict())
    if (found := clusters_of(model, last)) is not None:
        found.write(result.folder)
    result.write("history.json", stages)
    result.write("provenance.json", _end(origin, stages, tested, features, pairs))
    metrics = {"valid": stages["fit"].get("valid", {}), "test": tested.metrics if tested else {}}
    result.finish(metrics)


def fit(
    config: RunConfig,
    parts: Split,
    device: torch.device | str = "cpu",
    settings: TrainConfig | None = None,
    *,
    features: FeatureSet | None = None,
    validate: Callable[[Model], Mapping[str, float]] | None = None,
    folder: Path | None = None,
    progress: Any = None,
    tensorboard: Path | None = None,
) -> tuple[Model, History]:
    """The model of ``config`` fitted on ``parts.train``; ``settings`` stand in for ``config.train``.

    ``features`` are those of ``config`` and ``parts``, where they are at hand: a ranker's are made otherwise. Raises
    ResourceError where the model would not fit in memory.
    """
    features = features or features_of(config, parts)
    graph = graph_of(parts, features)
    model = build(config, graph).to(device)
    if config.eval.protocol == "links":
        require_vectors(model, config.eval.metrics)
    record = train(
        model,
        graph,
        settings or config.train,
        seed=config.seed,
        labelled=features.samples["train"] if features else parts.train,
        validate=validate,
        folder=folder,
        progress=progress,
        device=str(device),
        tensorboard=tensorboard,
    )
    return model, record


def build(config: RunConfig, graph: Graph) -> Model:
    """The model of ``config`` for ``graph``, not fitted. Raises ResourceError where it would not fit in memory."""
    name = configs.model_name(config.model)
    kind = models.load(name)
    what = f"{name} on {graph.n_users:,} users x {graph.n_items:,} items"
    memory.require(kind.memory(config.model, graph), what, "choose a smaller model, or a k-core of the log")
    return kind.from_graph(config.model, graph, torch.Generator().manual_seed(config.seed))


def features_of(config: RunConfig, parts: Split) -> FeatureSet | None:
    """The features of a ranker's ``config`` over ``parts``; None for other models."""
    if config.features is None:
        return None
    return read_features(config.source, config.features, parts, seed=config.seed)


def pairs_of(config: RunConfig, parts: Split) -> LinkPairs | None:
    """The labelled pairs that ``config`` measures links on; None for other protocols."""
    if config.eval.protocol != "links":
        return None
    return link_pairs(parts, config.eval, read_probe(config.source, parts.train))


def graph_of(parts: Split, features: FeatureSet | None) -> Graph:
    """The graph of ``parts.train``, with the macro graph where there are features."""
    graph = from_split(parts)
    return graph if features is None else replace(graph, macro=features.macro)


def validator(
    config: RunConfig,
    parts: Split,
    device: torch.device | str,
    features: FeatureSet | None = None,
    pairs: LinkPairs | None = None,
) -> Callable[[Model], Mapping[str, float]]:
    """What measures a model on valid while it learns.

    Raises ConfigError where training watches a cohort of held-out items that valid cannot tell.
    """
    if config.eval.protocol != "ranking":
        samples, on = features.samples if features else None, str(device)
        return lambda m: evaluate(m, parts, "valid", config.eval, samples=samples, pairs=pairs, device=on).metrics
    watched = () if config.train.monitor is None else (config.train.monitor,)
    task = ranking_task(parts, "valid", replace(config.eval, metrics=(*config.eval.metrics, *watched)))
    return lambda model: measure(model, task, config.eval).metrics


def watch(
    config: RunConfig,
    parts: Split,
    device: torch.device | str,
    features: FeatureSet | None = None,
    pairs: LinkPairs | None = None,
) -> Callable[[Model], Mapping[str, float]] | None:
    """The validator, where training watches a metric; training alone decides what it means to watch without valid."""
    watched = config.train.monitor
    if watched is None or not len(parts.valid):
        return None
    if config.eval.protocol == "links":  # a probe would take longer than an epoch
        direct = [name for name in config.eval.metrics if not probes_in([name])]
        config = replace(config, eval=replace(config.eval, metrics=tuple(dict.fromkeys([*direct, watched]))))
    return validator(config, parts, device, features, pairs)


def ranks(model: Any) -> bool:
    """Whether ``model``, a model's ``Config``, is that of a ranker."""
    return issubclass(models.load(configs.model_name(model)), Ranker)


def retrieves(model: Any) -> bool:
    """Whether ``model``, a model's ``Config``, is that of one with vectors whose inner product is the score."""
    return issubclass(models.load(configs.model_name(model)), TwoTower)


def for_epochs(settings: TrainConfig, epochs: int) -> TrainConfig:
    """``settings`` for exactly ``epochs`` epochs, without looking at valid."""
    return replace(settings, epochs=max(epochs, 1), monitor=None, patience=None)


def known_device(name: str) -> torch.device:
    """The device called ``name``; ConfigError for one that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device {name!r}: legal are cpu, cuda, cuda:N") from None
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= n_gpus):
        raise ConfigError(f"device {name!r} is not there: this machine has cpu and {n_gpus} CUDA devices")
    return device


def same_data(result: Run, parts: Split) -> None:
    """Raise DataError if ``parts`` are not those that the run began with."""
    if result.provenance["data"]["digest"] != parts.digest():
        raise DataError(f"the data of {result.folder} have changed since it began; --force runs it anew")


def same_features(result: Run, features: FeatureSet | None) -> None:
    """Raise DataError if groups, or the events that they count, are not those of the run."""
    if features is not None and result.provenance["features"]["digest"] != digest(features):
        raise DataError(
            f"the groups of {result.folder} cannot be made again: the item file has changed, or k-means rounds "
            "differently on this machine; --force runs it anew"
        )


def digest(features: FeatureSet) -> str:
    """SHA-256 of the groups of all users and items, and of the number of events that are counted by them."""
    macro = features.macro
    groups = (np.ascontiguousarray(side.of_N, dtype=np.int32).tobytes() for side in (macro.users, macro.items))
    return hashlib.sha256(b"".join(groups) + str(macro.n_events).encode()).hexdigest()


# --- stages and records ----------------------------------------------------------------------------------------------


def _begin(result: Run, parts: Split) -> dict[str, Any]:
    """What is known before the fit; an interrupted run must go on with the data that it began with."""
    if (result.folder / "provenance.json").is_file():
        same_data(result, parts)
        return {**result.provenance, "resumed": _now()}
    origin = {
        "command": provenance.command(),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "data": {"digest": parts.digest(), "protocol": dict(parts.protocol), "report": [dict(r) for r in parts.report]},
        "started": _now(),
    }
    result.write("provenance.json", origin)
    return origin


def _choose(
    result: Run, config: RunConfig, parts: Split, device: torch.device, progress: Any, board: Path | None
) -> dict[str, Any]:
    """The record of the stage ``fit`` of a run that refits: read if it is there, for the run was then interrupted."""
    if not result.has("fit.json"):
        features, pairs = features_of(config, parts), pairs_of(config, parts)
        validate = watch(config, parts, device, features, pairs)
        model, record = fit(
            config,
            parts,
            device,
            features=features,
            validate=validate,
            folder=result.stage("fit"),
            progress=progress,
            tensorboard=board and board / "fit",
        )
        valid = _measure(result, model, parts, "valid", config, device, features, pairs).metrics
        result.write("fit.json", {**asdict(record), "valid": valid})
    return result.read("fit.json")


def _measure(
    result: Run,
    model: Model,
    parts: Split,
    part: Literal["valid", "test"],
    config: RunConfig,
    device: torch.device,
    features: FeatureSet | None,
    pairs: LinkPairs | None,
) -> Evaluation:
    samples = features.samples if features else None
    measured = evaluate(model, parts, part, config.eval, samples=samples, pairs=pairs, device=str(device))
    result.write_per_user(part, measured.per_user)
    if measured.samples is not None:
        result.write_samples(part, measured.samples)
    if pairs is not None:
        result.write_pairs(part, pairs.part(part).frame())
        result.write_pairs("probe", pairs.probe.frame())
    if measured.degrees is not None:
        result.write_degrees(part, measured.degrees)
    return measured


def _end(
    origin: Mapping[str, Any],
    stages: Mapping[str, Any],
    tested: Evaluation | None,
    features: FeatureSet | None,
    pairs: LinkPairs | None,
) -> dict[str, Any]:
    epochs = list(stages.values())[-1]["epochs"]
    seconds = {
        "train": sum(stage["seconds"] for stage in stages.values()),
        "epoch": sum(epoch["seconds"] for epoch in epochs) / len(epochs) if epochs else None,
        "evaluate": tested.seconds if tested else None,
    }
    return {
        **origin,
        "finished": _now(),
        "seconds": seconds,
        "peak_rss_bytes": provenance.peak_rss_bytes(),
        "mask": tested.mask if tested else None,
        "counts": tested.counts if tested else {},
        "features": {**features.report, "digest": digest(features)} if features else {},
        "pairs": pairs.digests() if pairs else {},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
