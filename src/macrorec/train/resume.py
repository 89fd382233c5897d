"""What must be kept so that training goes on as if it had never stopped, and when is it written?"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.api import Model
from macrorec.data.log import Interactions
from macrorec.errors import DataError
from macrorec.graph.bipartite import Graph
from macrorec.graph.features import Samples
from macrorec.train import checkpoint
from macrorec.train.config import TrainConfig
from macrorec.train.history import Epoch

_WRITING_SHARE = 0.02
"""At an epoch's end a checkpoint is written, unless the time since the last is so short that this share would go."""


@dataclass(slots=True)
class Position:
    """Where training stands: all plain values that a resumption needs."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done in the next one."""
    totals: dict[str, float] = field(default_factory=dict)
    """Sum of each loss term over these steps."""
    epoch_seconds: float = 0.0
    """Spent on these steps."""
    seconds: float = 0.0
    """Spent on everything."""
    best_epoch: int = 0
    epochs: list[Epoch] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Fit:
    """All that training changes."""

    model: Model
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor] = field(default_factory=dict)
    """The state of the model at the best epoch, where that is to be kept."""
    mean: dict[str, Tensor] = field(default_factory=dict)
    """The mean of each parameter over the steps, where ``average`` asks for it."""
    at: Position = field(default_factory=Position)
    whole: bool = True
    """Whether the rest belongs together; not so within a step."""

    def tensors(self) -> dict[str, Tensor]:
        """Weights, best and mean weights and the optimiser's moments, under one name each."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"mean/{name}": tensor for name, tensor in self.mean.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{name}": value for name, value in moments.items()}
        return tensors

    @torch.no_grad()
    def follow(self, decay: float, step: int) -> None:
        """m <- m + max(1 - decay, 1 / t) (w - m), after step t = 1, 2, ...: at first the mean of all w so far."""
        weights = {name: weight.detach() for name, weight in self.model.named_parameters()}
        if not self.mean:
            self.mean = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            self.mean[name].lerp_(weight, max(1 - decay, 1 / step))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has the mean weights, if there are any; afterwards its own again."""
        own = {name: weight.detach().clone() for name, weight in self.model.named_parameters() if name in self.mean}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(own)

    def keep(self) -> None:
        """The state is the best so far."""
        with self.averaged():
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def finish(self) -> None:
        """Leave the model with the best weights, or else the mean ones."""
        if self.best:
            self.model.load_state_dict(self.best)
        else:
            self._put(self.mean)

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self.model.named_parameters():
            if name in weights:
                weight.copy_(weights[name])

    def load(self, found: checkpoint.Checkpoint) -> None:
        """Stand where ``found`` was written."""
        moments: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, Tensor] = {}
        device = next(self.model.parameters()).device
        for name, tensor in found.tensors.items():
            group, rest = name.split("/", 1)
            if group == "model":
                weights[rest] = tensor
            elif group in ("best", "mean"):
                getattr(self, group)[rest] = tensor.to(device, copy=True)
            else:
                number, key = rest.split("/", 1)
                moments.setdefault(int(number), {})[key] = tensor.clone()
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.at = Position(**found.state["position"])


class Saver:
    """Writes a ``Fit`` to a folder from time to time; with None as the folder it never does."""

    def __init__(self, folder: Path | None, identity: dict[str, Any], seconds: float) -> None:
        """``identity`` is that of the training, ``seconds`` the time between checkpoints."""
        self.folder, self.identity, self.seconds = folder, identity, seconds
        self.start = self.written = time.perf_counter()
        self.cost = 0.0

    def resume(self, fit: Fit) -> None:
        """Load the checkpoint, if there is one. Raises DataError if it belongs to another training."""
        found = None if self.folder is None else checkpoint.read(self.folder)
        if found is None:
            return
        changed = "; ".join(differences(found.state["identity"], self.identity))
        if changed:
            raise DataError(
                f"the checkpoint in {self.folder} belongs to another training ({changed}): "
                "restore what was changed, or delete the checkpoint to train from the beginning"
            )
        fit.load(found)
        self.start -= fit.at.seconds

    def elapsed(self) -> float:
        """Seconds since the training began, without the time between a kill and its resumption."""
        return time.perf_counter() - self.start

    def due(self, *, end_of_epoch: bool = False) -> bool:
        """Whether it is time to write."""
        since = time.perf_counter() - self.written
        cheap = end_of_epoch and self.cost <= _WRITING_SHARE * since
        return self.folder is not None and (cheap or since >= self.seconds)

    def write(self, fit: Fit) -> None:
        """Write now."""
        if self.folder is None:
            return
        start = time.perf_counter()
        fit.at.seconds = self.elapsed()
        state = {"identity": self.identity, "position": asdict(fit.at), "versions": _versions()}
        checkpoint.write(self.folder, fit.tensors(), state)
        self.written = time.perf_counter()
        self.cost = self.written - start


def identity_of(
    model: Model, graph: Graph, config: TrainConfig, seed: int, labelled: Interactions | Samples | None
) -> dict[str, Any]:
    """What the numbers of a training depend on: a checkpoint of another identity is refused."""
    settings = asdict(config)
    for name in ("checkpoint_seconds", "threads"):
        del settings[name]
    own = asdict(model.config) if is_dataclass(model.config) and not isinstance(model.config, type) else {}
    hasher = hashlib.sha256(repr((graph.n_users, graph.n_items, graph.behaviors)).encode())
    for edges in graph.edges:
        for tensor in (edges.start_U, edges.item_E, edges.weight_E, edges.count_E):
            hasher.update(tensor.numpy().data)
    for column in _columns(labelled):
        hasher.update(np.ascontiguousarray(column).data)
    identity = {
        "model": {"name": type(model).__name__, **own},
        "train": settings,
        "seed": seed,
        "data": hasher.hexdigest(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def _columns(labelled: Interactions | Samples | None) -> list[npt.NDArray[Any]]:
    """All that is learned from labelled rows; of samples that is what they have seen."""
    if isinstance(labelled, Samples):
        seen = [getattr(labelled.features, column.name).numpy() for column in fields(labelled.features)]
        return [*seen, labelled.label_B.numpy()]
    if labelled is None or labelled.label is None:
        return []
    return [labelled.user, labelled.item, labelled.label]


def differences(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """``train.lr was 0.01, is 0.1``, for every leaf that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from differences(then.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif then != now:
        yield "other train data" if path == "data" else f"{path} was {then!r}, is {now!r}"


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
