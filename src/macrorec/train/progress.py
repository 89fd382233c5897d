"""How far is training? A bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_REDRAW_SECONDS = 0.1


class Progress(Protocol):
    """What ``train`` tells while it runs. Epochs and steps count from 1."""

    def start(self, n_epochs: int, n_steps: int, done: int = 0) -> None:
        """Training begins, or goes on after ``done`` steps of ``n_epochs * n_steps``."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A batch is done; ``loss`` is the sum of its terms."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done, and validated if its turn came; ``record`` is that of ``History.epochs``."""

    def close(self) -> None:
        """Training is over, or was broken off."""


def reporter(*, quiet: bool = False, stream: TextIO | None = None, every: float = 30.0) -> Progress | None:
    """The progress that fits ``stream`` (standard error): a bar if it is a terminal, else lines; None if ``quiet``.

    Lines come once per epoch, and every ``every`` seconds within an epoch.
    """
    if quiet:
        return None
    stream = sys.stderr if stream is None else stream
    return TerminalBar(stream) if stream.isatty() else Lines(stream, every)


def describe(record: Mapping[str, Any]) -> str:
    """``loss .4213 (bpr .4100, l2 .0113), recall@20 .1234``."""
    losses: Mapping[str, float] = record["losses"]
    metrics: Mapping[str, float] = record["metrics"]
    parts = []
    if losses:
        terms = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        parts.append(f"loss {sum(losses.values()):.4g}" + (f" ({terms})" if len(losses) > 1 else ""))
    return ", ".join(parts + [f"{name} {value:.4f}" for name, value in metrics.items()])


class Lines:
    """One line per epoch, and one every ``every`` seconds."""

    def __init__(self, stream: TextIO, every: float) -> None:
        self.stream, self.every = stream, every
        self.n_epochs = self.n_steps = 0
        self.told = time.monotonic()

    def start(self, n_epochs: int, n_steps: int, done: int = 0) -> None:
        self.n_epochs, self.n_steps, self.told = n_epochs, n_steps, time.monotonic()
        if done:
            epoch, step = divmod(done, n_steps)
            self._say(f"resuming after epoch {epoch} and {step} of {n_steps} steps")

    def step(self, epoch: int, step: int, loss: float) -> None:
        if time.monotonic() - self.told >= self.every:
            self._say(f"epoch {epoch}/{self.n_epochs}, step {step}/{self.n_steps}: loss {loss:.4g}")

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._say(f"epoch {record['epoch']}/{self.n_epochs}: {describe(record)}, {record['seconds']:.1f} s")

    def close(self) -> None:
        self.stream.flush()

    def _say(self, line: str) -> None:
        self.told = time.monotonic()
        print(line, file=self.stream, flush=True)


class TerminalBar:
    """A bar over all steps, with epoch, step, loss, the last metrics, and the time left."""

    def __init__(self, stream: TextIO) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(file=stream))
        self.n_epochs = self.n_steps = 0
        self.metrics = ""
        self.drawn = 0.0

    def start(self, n_epochs: int, n_steps: int, done: int = 0) -> None:
        self.n_epochs, self.n_steps = n_epochs, n_steps
        self.task = self.bar.add_task("training", total=n_epochs * n_steps, completed=done, note="")
        self.bar.start()

    def step(self, epoch: int, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self.drawn < _REDRAW_SECONDS:
            return
        self.drawn = now
        self.bar.update(
            self.task,
            completed=(epoch - 1) * self.n_steps + step,
            description=f"epoch {epoch}/{self.n_epochs} step {step}/{self.n_steps}",
            note=f"loss {loss:.4g}{self.metrics}",
        )

    def epoch(self, record: Mapping[str, Any]) -> None:
        if record["metrics"]:
            self.metrics = "".join(f", {name} {value:.4f}" for name, value in record["metrics"].items())
        self.bar.update(self.task, completed=record["epoch"] * self.n_steps, note=describe(record))

    def close(self) -> None:
        self.bar.stop()
