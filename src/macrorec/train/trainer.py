"""How is a model fitted? One loop over batches for every model that has losses, one call for those in closed form.

``train`` is never given the test split. Broken off at any moment and called again with the same arguments, it ends with
the same bits as if nothing had happened: batches are functions of (seed, epoch, step), the rest is in the checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from macrorec.api import Model
from macrorec.data.log import Interactions
from macrorec.errors import ConfigError, DataError, UserError
from macrorec.graph.bipartite import Graph
from macrorec.graph.features import Samples
from macrorec.train import tracking
from macrorec.train.config import TrainConfig
from macrorec.train.history import Epoch, History, exhausted, improves
from macrorec.train.machine import determinism, interrupts, threads
from macrorec.train.memory import require
from macrorec.train.progress import Progress
from macrorec.train.resume import Fit, Saver, identity_of
from macrorec.train.sampling import Purpose, Sampler, sampler, torch_stream

__all__ = ["History", "TrainConfig", "Validate", "train"]

Validate = Callable[[Model], Mapping[str, float]]
"""Measures a model on the validation part: metric -> value."""

_STEPS_BETWEEN_LOOKS = {"cpu": 1}
"""By device; elsewhere losses are read every 50 steps only: reading one waits for the device."""


def train(
    model: Model,
    graph: Graph,
    config: TrainConfig,
    *,
    seed: int,
    labelled: Interactions | Samples | None = None,
    validate: Validate | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
    tensorboard: Path | None = None,
) -> History:
    """Fit ``model`` to ``graph`` in place; it ends on ``device``, in evaluation mode.

    ``labelled`` is the train part of the log, for models of ``Labelled`` batches, or its samples, for rankers. With
    ``folder``, checkpoints are written there, one found there is resumed, and Ctrl-C writes one. ``tensorboard`` is a
    folder to log to.

    Raises ResourceError if the model's estimate of memory does not fit or a checkpoint cannot be written, DataError if
    there is nothing to train on or a checkpoint belongs to other arguments, ConfigError if ``config.monitor`` is not
    measured, and UserError if a loss or a weight is no longer finite; the last good checkpoint stays.
    """
    if config.monitor is not None and validate is None:
        raise ConfigError(f"monitor {config.monitor!r} needs a validation part, and there is none")
    hint = "choose a smaller dim, or raise the k-core"
    require(_to_come(model, graph, device), f"training {type(model).__name__}", hint, device=device)
    on_cpu = torch.device(device).type == "cpu"
    with threads(config.threads), determinism(on_cpu or config.deterministic):
        if model.batches is None:
            history = _solve(model, graph, config, seed, validate, device)
        else:
            model.to(device)
            fit = Fit(model=model, optimizer=_optimizer(model, config))
            batches = sampler(model.batches, graph, config.batch_size, seed=seed, labelled=labelled, device=device)
            identity = {} if folder is None else identity_of(model, graph, config, seed, labelled)
            saver = Saver(folder, identity, config.checkpoint_seconds)
            saver.resume(fit)
            history = _descend(fit, batches, config, validate, saver, progress, tensorboard)
    model.eval()
    return history


def _to_come(model: Model, graph: Graph, device: torch.device | str) -> int:
    """The model's estimate of memory, less what it already holds on ``device``."""
    kind = torch.device(device).type
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()) if t.device.type == kind)
    return max(0, type(model).memory(model.config, graph) - held)


def _solve(
    model: Model, graph: Graph, config: TrainConfig, seed: int, validate: Validate | None, device: torch.device | str
) -> History:
    """Fit in closed form, on the CPU, and validate once."""
    start = time.perf_counter()
    model.solve(graph, torch_stream(seed, Purpose.SOLVE))
    model.to(device)
    solved = time.perf_counter()
    metrics = _measure(model, validate, config.monitor)
    end = time.perf_counter()
    only = Epoch(epoch=0, losses={}, metrics=metrics, seconds=solved - start, validation_seconds=end - solved)
    return History(epochs=[only], best_epoch=0, seconds=end - start)


def _descend(
    fit: Fit,
    batches: Sampler,
    config: TrainConfig,
    validate: Validate | None,
    saver: Saver,
    progress: Progress | None,
    tensorboard: Path | None,
) -> History:
    """The epochs that are still to be done."""
    at, n_steps = fit.at, batches.n_steps
    writer = None if tensorboard is None else tracking.writer(tensorboard, at.epoch + 1)
    if progress is not None:
        progress.start(config.epochs, n_steps, at.epoch * n_steps + at.step)
    try:
        while not _over(fit, config):
            with interrupts(deferred=saver.folder is not None) as pressed:
                _steps(fit, batches, config, saver, progress, pressed)
            _check_weights(fit, n_steps, config)
            start = time.perf_counter()
            last = at.epoch + 1 == config.epochs
            metrics: dict[str, float] = {}
            if last or (at.epoch + 1) % config.validate_every == 0:
                with fit.averaged():
                    metrics = _measure(fit.model, validate, config.monitor)
            with interrupts(deferred=saver.folder is not None):
                _end_epoch(fit, n_steps, config, metrics, time.perf_counter() - start)
                if _over(fit, config) or saver.due(end_of_epoch=True):
                    saver.write(fit)
            if writer is not None:
                tracking.record(writer, at.epochs[-1])
            if progress is not None:
                progress.epoch(at.epochs[-1])
    except KeyboardInterrupt:
        if fit.whole:
            saver.write(fit)
        raise
    finally:
        if progress is not None:
            progress.close()
        if writer is not None:
            writer.close()
    fit.finish()
    return History(epochs=at.epochs, best_epoch=at.best_epoch, seconds=saver.elapsed())


def _over(fit: Fit, config: TrainConfig) -> bool:
    return fit.at.epoch >= config.epochs or exhausted(fit.at.epochs, fit.at.best_epoch, config.patience)


def _steps(
    fit: Fit,
    batches: Sampler,
    config: TrainConfig,
    saver: Saver,
    progress: Progress | None,
    pressed: Callable[[], bool],
) -> None:
    """The steps of the current epoch that are still to be done, or as many as come before Ctrl-C is ``pressed``."""
    at, n_steps = fit.at, batches.n_steps
    parameters = [p for p in fit.model.parameters() if p.requires_grad]

    def step(loss: Tensor) -> None:
        fit.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        fit.optimizer.step()

    fit.model.train()
    unread: list[tuple[int, dict[str, Tensor]]] = []
    at_most = _STEPS_BETWEEN_LOOKS.get(batches.device.type, 50)
    start = time.perf_counter()
    for number, batch in enumerate(batches.epoch(at.epoch, at.step), at.step + 1):
        fit.whole = False
        terms = fit.model.training_step(batch, step)
        if config.average:
            fit.follow(config.average, at.epoch * n_steps + number)
        unread.append((number, {name: term.detach() for name, term in terms.items()}))
        write, stop = saver.due(), pressed()
        if not (write or stop or number == n_steps or len(unread) >= at_most):
            continue
        loss = _read(unread, fit, n_steps, config)
        at.step, fit.whole = number, True
        at.epoch_seconds += time.perf_counter() - start
        if progress is not None:
            progress.step(at.epoch + 1, number, loss)
        if write or stop:
            _check_weights(fit, n_steps, config)
        if write:
            saver.write(fit)
        if stop:
            break
        start = time.perf_counter()


def _read(unread: list[tuple[int, dict[str, Tensor]]], fit: Fit, n_steps: int, config: TrainConfig) -> float:
    """Add the losses of these steps to the totals; returns the last sum. Raises UserError if one is not finite."""
    loss = math.nan
    for number, terms in unread:
        if all(term.device.type == "cpu" for term in terms.values()):
            values = [term.item() for term in terms.values()]
        else:  # one wait for the device
            values = torch.stack([term.double() for term in terms.values()]).tolist()
        for name, value in zip(terms, values, strict=True):
            if not math.isfinite(value):
                raise _diverged(f"loss term {name!r} became {value}", fit, number, n_steps, config)
            fit.at.totals[name] = fit.at.totals.get(name, 0.0) + value
        loss = sum(values)
    unread.clear()
    return loss


def _end_epoch(fit: Fit, n_steps: int, config: TrainConfig, metrics: dict[str, float], seconds: float) -> None:
    """Enter the epoch into the history, and go on to the next."""
    at = fit.at
    best = at.epochs[at.best_epoch - 1]["metrics"] if at.best_epoch else None
    at.epochs.append(
        Epoch(
            epoch=at.epoch + 1,
            losses={name: total / n_steps for name, total in at.totals.items()},
            metrics=metrics,
            seconds=at.epoch_seconds,
            validation_seconds=seconds,
        )
    )
    if improves(metrics, best, config.monitor):
        at.best_epoch = at.epoch + 1
        if config.monitor is not None and config.keep == "best":
            fit.keep()
    at.epoch, at.step, at.totals, at.epoch_seconds = at.epoch + 1, 0, {}, 0.0


def _check_weights(fit: Fit, n_steps: int, config: TrainConfig) -> None:
    for name, parameter in fit.model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise _diverged(f"parameter {name!r} is no longer finite", fit, fit.at.step, n_steps, config)


def _diverged(what: str, fit: Fit, step: int, n_steps: int, config: TrainConfig) -> UserError:
    return UserError(
        f"{what} in epoch {fit.at.epoch + 1}, step {step} of {n_steps}: "
        f"choose a smaller lr (now {config.lr:g}), or set clip_norm (now {config.clip_norm})"
    )


def _measure(model: Model, validate: Validate | None, monitor: str | None) -> dict[str, float]:
    if validate is None:
        return {}
    model.eval()
    with torch.no_grad():
        metrics = {name: float(value) for name, value in validate(model).items()}
    if monitor is not None and monitor not in metrics:
        raise ConfigError(f"monitor {monitor!r} is not measured: choose one of {', '.join(sorted(metrics))}")
    if monitor is not None and math.isnan(metrics[monitor]):
        raise DataError(f"monitor {monitor!r} is not a number: the validation part cannot measure it")
    return metrics


def _optimizer(model: Model, config: TrainConfig) -> torch.optim.Optimizer:
    """The model's own, or torch's, fused: on a CPU 3 times as fast as ``foreach``, 8 times as the plain loop, equal but
    for rounding."""
    own = model.optimizer(config.optimizer, lr=config.lr, weight_decay=config.weight_decay, clip_norm=config.clip_norm)
    if own is not None:
        if config.average:
            raise ConfigError(f"average must be 0 for {type(model).__name__} as set: its rows lag behind its steps")
        return own
    parameters = [p for p in model.parameters() if p.requires_grad]
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        case "sgd":
            return torch.optim.SGD(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        case "adagrad":
            fused = all(p.device.type == "cpu" for p in parameters)  # there is no fused Adagrad for CUDA
            return torch.optim.Adagrad(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
