"""Which settings does validation prefer? A seeded search by Optuna that never reads test, with its budget on record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from macrorec import configs, provenance
from macrorec.data.log import Split
from macrorec.errors import ConfigError, DataError, ResourceError
from macrorec.eval.evaluate import check
from macrorec.eval.metrics import METRICS, parse, with_cohorts
from macrorec.files import flush, told
from macrorec.graph.features import FeatureSet
from macrorec.inputs import read_split
from macrorec.restore import summary
from macrorec.run import RunConfig, features_of, fit, known_device, pairs_of, run, validator, watch

SEARCHABLE = ("model", "train", "features.users", "features.items", "features.recents")
"""What may be searched: no other key leaves the rows of valid and test as they are."""

Space = Mapping[str, Any]
"""Dotted key -> a list of choices, or ``{"low": a, "high": b, "log": bool}``; two integers search integers."""


def tune(
    config: RunConfig,
    space: Space,
    *,
    name: str,
    trials: int,
    seconds: float | None = None,
    metric: str | None = None,
    seeds: Sequence[int] | None = None,
    root: str | Path = "runs",
    device: str = "cpu",
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Search ``space`` around ``config`` for the best ``metric`` on valid; then run the best one, tested once.

    Stops after ``trials``, or when ``seconds`` have passed. ``metric`` defaults to ``train.monitor``, else to the first
    of ``eval.metrics``. The first trial is ``config`` itself. The value of a trial is the mean over ``seeds``, by
    default the one of ``config``: where single runs spread more than settings differ, one seed finds its own luck.
    Trials that do not fit in memory count as failed. A search that was stopped goes on from its ``Journal`` when it is
    asked for again.
    Raises ConfigError for a space that does not fit the configuration, DataError for a split without valid.
    """
    own = tuple(seeds) if seeds is not None else (config.seed,)
    if not own or len(set(own)) < len(own):
        raise ConfigError(f"seeds of a search must be different numbers, at least one; got {list(own)}")
    on = known_device(device)
    measurable = check(config.eval)
    metric = metric or config.train.monitor or measurable[0]
    if metric not in with_cohorts(measurable):
        raise ConfigError(f"cannot tune for {metric!r}: eval.metrics are {', '.join(measurable)}")
    sign = 1 if METRICS[parse(metric)[0]].higher_is_better else -1
    table = configs.plain(config)
    check_space(table, space)
    wanted = replace(config.eval, metrics=tuple(dict.fromkeys((*measurable, metric))))
    boards = [Board(replace(config, eval=wanted, seed=seed), on) for seed in own]
    rebuilt = any(key.startswith("features.") for key in space)
    asked = {"config": table, "space": dict(space), "metric": metric, "seeds": own, "versions": provenance.versions()}
    asked |= {"commit": provenance.commit(), "data": [board.whole.digest() for board in boards]}
    journal = Journal(Path(root) / f"search-{name}-{configs.hash8(asked)}.jsonl")
    if note and journal.trials:
        note(f"{len(journal.trials)} trials of this search are on record in {journal.path}; it goes on from there")
    began, before = time.monotonic(), 0.0
    record: list[dict[str, Any]] = []
    study = _study(config.seed, start={key: _get(table, key) for key in space}, space=space)
    while len(record) < trials and (seconds is None or not record or before + time.monotonic() - began < seconds):
        trial = study.ask()
        chosen = {key: _suggest(trial, key, wanted) for key, wanted in space.items()}
        entry = journal.trial(chosen)
        if entry is not None:
            before += entry["seconds"]
        else:
            entry = _played(boards, table, chosen, metric, rebuilt=rebuilt)
            journal.add(entry)
        failed = entry["value"] is None
        study.tell(trial, None if failed else sign * entry["value"], state=_failed() if failed else None)
        record.append(entry)
        if note:
            note(f"trial {len(record)} of {trials}: {metric} {_shown(entry)}  {chosen}")
    spent = before + time.monotonic() - began
    done = [entry for entry in record if entry["value"] is not None]
    if not done:
        raise ConfigError(f"no trial of the search succeeded; the last one failed: {record[-1]['failed']}")
    best = max(done, key=lambda entry: sign * entry["value"])
    winner = configs.parse(RunConfig, _put(table, best["settings"]))
    tested = run(replace(winner, refit=True), name=name, root=root, device=device)
    journal.close()
    return {
        "recipe": name,
        "metric": metric,
        "part": "valid",
        "budget": {"trials": trials, "seconds": seconds, "seeds": list(own)},
        "spent": {"trials": len(record), "seconds": round(spent, 1)},
        "space": dict(space),
        "best": best,
        "trials": record,
        "run": {**summary(tested, name), "config": tested.config},
        "data": tested.provenance["data"]["digest"],
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }


class Board:
    """The data of one seed, without test, on which every trial of a search is played."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.seed, self.device = config.seed, device
        self.whole = read_split(config.source, config.prepare, config.split, seed=config.seed)
        self.parts, self.features = untested(self.whole), unlabelled(features_of(config, self.whole))
        if not len(self.parts.valid):
            raise DataError("cannot tune without a valid part; set split.valid, such as split.valid.kind=leave-one-out")
        whole = pairs_of(config, self.whole)  # of all parts: no pair of valid may be an edge of test
        self.pairs = whole and replace(whole, test=self.parts.test)
        self.measured = validator(config, self.parts, device, self.features, self.pairs)

    def play(self, config: RunConfig, metric: str, *, rebuilt: bool) -> tuple[float, int]:
        """``metric`` of ``config`` on valid, and the epoch that was best; ``rebuilt``: its features are its own."""
        config = replace(config, seed=self.seed)
        if rebuilt:
            self.features = unlabelled(features_of(config, self.whole))
            self.measured = validator(config, self.parts, self.device, self.features, self.pairs)
        validate = watch(config, self.parts, self.device, self.features, self.pairs)
        model, history = fit(config, self.parts, self.device, features=self.features, validate=validate)
        return self.measured(model)[metric], history.best_epoch


class Journal:
    """The trials of one search as they end, a line of JSON each: a stop loses the one that is being played.

    Its name holds all that the values depend on; trials that failed are played again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: dict[str, dict[str, Any]] = {}
        """What was read, by its settings."""
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # torn by a stop
                    continue
                self.trials[_canonical(entry["settings"])] = entry

    def trial(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was measured of ``settings`` before the stop, once; or None."""
        return self.trials.pop(_canonical(settings), None)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write a trial, and wait until it is on disk."""
        if entry["value"] is None:
            return
        with told(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" * bool(file.tell()) + json.dumps(entry))
            flush(self.path)

    def close(self) -> None:
        """The search has ended, and its result holds the trials."""
        self.path.unlink(missing_ok=True)


def _canonical(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _played(
    boards: Sequence[Board], table: Mapping[str, Any], chosen: dict[str, Any], metric: str, *, rebuilt: bool
) -> dict[str, Any]:
    """The record of one trial: the value of ``chosen`` on every board, and their mean; or why there is none."""
    began = time.monotonic()
    entry: dict[str, Any] = {"settings": chosen, "value": None, "seconds": 0.0}
    try:
        candidate = configs.parse(RunConfig, _put(table, chosen))
        played = [board.play(candidate, metric, rebuilt=rebuilt) for board in boards]
        values, epochs = ([score[n] for score in played] for n in (0, 1))
        entry |= {"value": float(np.mean(values)), "values": values, "best_epochs": epochs}
    except (ConfigError, ResourceError) as error:
        entry["failed"] = str(error)
    entry["seconds"] = round(time.monotonic() - began, 3)
    return entry


def read_space(path: Path) -> dict[str, Any]:
    """The space in a TOML file, or that of the search whose result stands in a JSON file. Raises ConfigError."""
    if path.suffix != ".json":
        return configs.read_toml(path)
    try:
        match json.loads(path.read_text(encoding="utf-8")):
            case {"space": dict(space)}:
                return space
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        pass  # no JSON: no result either
    raise ConfigError(f"{path} is not the result of a search; a space is a TOML file, or such a result")


def untested(parts: Split) -> Split:
    """``parts`` without test: what a search may see."""
    return replace(parts, test=parts.test.take(np.zeros(len(parts.test), dtype=bool)))


def unlabelled(features: FeatureSet | None) -> FeatureSet | None:
    """``features`` without the samples of test. They are made of the whole log, for it is a share of all its events
    that is history; nothing that train and valid have seen stands in test."""
    if features is None:
        return None
    return replace(features, samples={name: features.samples[name] for name in ("train", "valid")})


def check_space(table: Mapping[str, Any], space: Space) -> None:
    """Raise ConfigError unless every key is one of the configuration's and every entry is a list or a range."""
    if not space:
        raise ConfigError(
            'there is nothing to search: give a space, such as "model.l2" = {low = 1.0, high = 1e4, log = true}'
        )
    for key, wanted in space.items():
        if not any(key == own or key.startswith(f"{own}.") for own in SEARCHABLE):
            raise ConfigError(f"cannot search {key!r}: only keys of {', '.join(SEARCHABLE)} leave the measure as it is")
        _get(table, key)
        if isinstance(wanted, list) and wanted:
            continue
        if not isinstance(wanted, Mapping) or not {"low", "high"} <= wanted.keys() <= {"low", "high", "log"}:
            raise ConfigError(f"the space of {key!r} must be a list of choices or {{low, high, log}}; got {wanted!r}")
        low, high = wanted["low"], wanted["high"]
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        if not numbers or not low < high or (wanted.get("log") and low <= 0):
            raise ConfigError(f"the space of {key!r} needs low < high, and low > 0 where log is true; got {wanted!r}")


def _study(seed: int, start: Mapping[str, Any], space: Space) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    if all(_inside(start[key], wanted) for key, wanted in space.items()):
        study.enqueue_trial({key: _known(start[key], wanted) for key, wanted in space.items()})
    return study


def _known(value: Any, wanted: Any) -> Any:
    """What stands for ``value`` in a study: itself, or its place among choices that are lists, unknown to Optuna."""
    return wanted.index(value) if _of_lists(wanted) else value


def _of_lists(wanted: Any) -> bool:
    return isinstance(wanted, list) and any(isinstance(choice, list) for choice in wanted)


def _inside(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(value, int | float) and wanted["low"] <= value <= wanted["high"]
    return value in wanted


def _suggest(trial: Any, key: str, wanted: Any) -> Any:
    if not isinstance(wanted, Mapping):
        if _of_lists(wanted):
            return wanted[trial.suggest_categorical(key, range(len(wanted)))]
        return trial.suggest_categorical(key, wanted)
    low, high, log = wanted["low"], wanted["high"], bool(wanted.get("log"))
    integers = isinstance(low, int) and isinstance(high, int)
    return (trial.suggest_int if integers else trial.suggest_float)(key, low, high, log=log)


def _failed() -> Any:
    import optuna

    return optuna.trial.TrialState.FAIL


def _get(table: Mapping[str, Any], key: str) -> Any:
    place: Any = table
    for part in key.split("."):
        if not isinstance(place, Mapping) or part not in place:
            raise ConfigError(
                configs.unknown(f"key {key!r} in the space", part, place if isinstance(place, Mapping) else ())
            )
        place = place[part]
    return place


def _put(table: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` with the values of ``chosen`` at their dotted keys."""
    result = configs.plain(table)
    for key, value in chosen.items():
        *path, last = key.split(".")
        place = result
        for part in path:
            place = place[part]
        place[last] = value
    return dict(result)


def _shown(entry: Mapping[str, Any]) -> str:
    return "failed" if entry["value"] is None else f"{entry['value']:.4f}"
