"""Trains until it is killed, again and again: the process under test of ``test_kill_resume``.

``python -m tests.end_to_end.killed FOLDER ROUNDS SEED MODEL`` trains a model once undisturbed, then in rounds: a
fork trains, with a checkpoint after every step, and is killed with SIGKILL at a random moment, until one gets to the
end. Prints one JSON line: per round the kills, how many left a checkpoint, how many fell into writing one, and whether
the weights and the history are equal to the undisturbed ones.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tests.train.toys import graph_of, samples_of

from macrorec import models
from macrorec.api import Model
from macrorec.train.trainer import TrainConfig, train

CONFIG = TrainConfig(epochs=4, batch_size=48, lr=0.05, monitor="score", checkpoint_seconds=0.0, threads=1)
GRAPH = graph_of()
SAMPLES = samples_of(GRAPH)
SETTINGS: dict[str, dict[str, Any]] = {
    "bpr": {"dim": 8},
    "ccbie": {"dim": 8, "hidden": 8, "n_clusters": 6, "n_preferences": 4},
    "macgnn": {"dim": 4, "hidden": (16,), "dropout": 0.2},
}
MIDDLE = {"bpr": 0.12, "ccbie": 0.26, "macgnn": 0.16}
"""Mean size of the users' numbers after an early epoch."""


def validate(model: Model) -> dict[str, float]:
    """Highest after an early epoch, so that the best weights are not the last."""
    users_UD = model.get_parameter("users_UD")
    return {"score": -float((users_UD.abs().mean() - MIDDLE[models.name_of(type(model))]).abs())}


def fit(out: Path, folder: Path | None, name: str) -> None:
    """One training, from wherever ``folder`` stands, to ``out``: weights and history."""
    kind = models.load(name)
    model = kind.from_graph(kind.Config(**SETTINGS[name]), GRAPH, torch.Generator().manual_seed(0))
    history = train(model, GRAPH, CONFIG, seed=3, labelled=SAMPLES, validate=validate, folder=folder)
    out.with_suffix(".json").write_text(json.dumps(history.without_times()))
    safetensors.torch.save_file(model.state_dict(), out)


def fork(out: Path, folder: Path, name: str) -> int:
    """A process that trains and exits with 0; its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fit(out, folder, name)
            code = 0
        finally:
            os._exit(code)
    return child


def undisturbed(root: Path, name: str) -> float:
    """Train with checkpoints and without kills; the seconds it takes."""
    start = time.perf_counter()
    child = fork(root / "timed.safetensors", root / "timed", name)
    assert os.waitpid(child, 0)[1] == 0
    return time.perf_counter() - start


def one_round(root: Path, chance: random.Random, seconds: float, name: str) -> dict[str, Any]:
    """Kill until the training gets through; at most 20 kills."""
    out, folder = root / "out.safetensors", root / "checkpoints"
    kills = resumed = torn = 0
    while True:
        child = fork(out, folder, name)
        if kills < 20:
            time.sleep(chance.uniform(0, seconds / 2))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return {"out": out, "kills": kills, "resumed": resumed, "torn": torn}
        kills += 1
        resumed += (folder / "checkpoint.safetensors").exists()
        torn += (folder / "checkpoint.tmp").exists()


def main(root: Path, rounds: int, seed: int, name: str) -> None:
    """See the module."""
    chance = random.Random(seed)
    fit(root / "whole.safetensors", None, name)
    seconds = undisturbed(root, name)
    results = []
    for number in range(rounds):
        (root / str(number)).mkdir()
        result = one_round(root / str(number), chance, seconds, name)
        out: Path = result.pop("out")
        result["weights"] = out.read_bytes() == (root / "whole.safetensors").read_bytes()
        result["history"] = out.with_suffix(".json").read_text() == (root / "whole.json").read_text()
        results.append(result)
    best = json.loads((root / "whole.json").read_text())["best_epoch"]
    print(json.dumps({"best_epoch": best, "seconds": seconds, "rounds": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
