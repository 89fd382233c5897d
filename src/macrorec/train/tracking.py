"""How do losses and metrics get into TensorBoard? Only where asked for, and only then is it imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from macrorec.errors import ConfigError


class Writer(Protocol):
    """The part of ``torch.utils.tensorboard.SummaryWriter`` that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def close(self) -> None: ...


def writer(folder: Path, first_epoch: int = 1) -> Writer:
    """A TensorBoard writer into ``folder``; what an interrupted run wrote from ``first_epoch`` on is hidden.

    Raises ConfigError if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("TensorBoard is not installed: pip install 'macrorec[track]'") from error
    made: Writer = SummaryWriter(log_dir=str(folder), purge_step=first_epoch)
    return made


def record(to: Writer, epoch: Mapping[str, Any]) -> None:
    """Write one epoch of a ``History``: ``loss/<term>``, ``valid/<metric>`` and ``seconds``, at its number."""
    for term, value in epoch["losses"].items():
        to.add_scalar(f"loss/{term}", value, epoch["epoch"])
    for metric, value in epoch["metrics"].items():
        to.add_scalar(f"valid/{metric}", value, epoch["epoch"])
    to.add_scalar("seconds", epoch["seconds"], epoch["epoch"])
