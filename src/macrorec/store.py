"""Where does a run leave its results? In runs/<recipe>-<seed>-<hash8>, finished when ``metrics.json`` is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from macrorec import files, weights
from macrorec.bundle import MANIFEST, Bundle
from macrorec.clusters import Clusters
from macrorec.errors import DataError, UserError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["Bundle", "Run"]
FINISHED = "metrics.json"
"""Written last: a folder without it holds an interrupted run."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run's folder.

    config.json          the resolved configuration
    weights.safetensors  the fitted model's state
    history.json         per stage: losses, seconds and validation metrics of each epoch
    per_user-PART.parquet  user_id and a column per metric
    degrees-PART.parquet   rankings only: every metric by train degree of users and of held-out items
    pairs-PART.parquet     links only: user_id, item_id, label of the pairs of valid, test and the probe
    clusters-SIDE.parquet  users and items: their clusters, of a model that has any; see ``macrorec.clusters``
    samples-PART.parquet   clicks only: user_id, item_id, label, logit, user_history, item_history per impression
    provenance.json      versions, command, data digest and row report, machine, times, seeds, mask policy
    metrics.json         {valid: {...}, test: {...}}; written last
    """

    folder: Path

    @staticmethod
    def open(folder: str | Path) -> Run:
        """The finished run in ``folder``. Raises DataError if there is none."""
        run = Run(Path(folder))
        if not run.finished:
            if run.has(MANIFEST):
                raise DataError(f"{run.folder} is a bundle; asked for is the folder of a run, as in runs/")
            state = "is interrupted: run it again to finish it" if run.has("config.json") else "is no run"
            raise DataError(f"{run.folder} {state} ({FINISHED} is missing)")
        return run

    @property
    def name(self) -> str:
        """The folder's name, <recipe>-<seed>-<hash8>."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether all results are there."""
        return self.has(FINISHED)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration as plain values."""
        return self.read("config.json")

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by part."""
        return self.read(FINISHED)

    @property
    def history(self) -> dict[str, Any]:
        """What training recorded, by stage."""
        return self.read("history.json")

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from."""
        return self.read("provenance.json")

    def per_user(self, part: str) -> pl.DataFrame:
        """user_id and a column per metric, for the users of ``part`` that have relevant items."""
        path = self.folder / f"per_user-{part}.parquet"
        if not path.is_file():
            raise DataError(f"{self.folder} has no results for part {part!r}")
        return pl.read_parquet(path)

    def samples(self, part: str) -> pl.DataFrame | None:
        """Every impression of ``part`` with its label and logit; None for a run that measured something else."""
        return self._frame(f"samples-{part}.parquet")

    def degrees(self, part: str) -> pl.DataFrame | None:
        """Every metric of ``part`` by train degree; None for a run that ranks nothing, or does not tell."""
        return self._frame(f"degrees-{part}.parquet")

    def pairs(self, part: str) -> Path:
        """Where the labelled pairs of ``part`` lie, of a run that measured links."""
        return self.folder / f"pairs-{part}.parquet"

    def weights(self) -> dict[str, torch.Tensor]:
        """The fitted model's state, on the CPU."""
        return weights.read(self.folder / "weights.safetensors")

    def _frame(self, name: str) -> pl.DataFrame | None:
        """The table ``name``, if it is there."""
        return pl.read_parquet(self.folder / name) if self.has(name) else None

    def clusters(self) -> Clusters | None:
        """The model's clusters; None where it has none, or where an older macrorec did not write them."""
        return Clusters.read(self.folder)

    def has(self, name: str) -> bool:
        """Whether the file ``name`` is there."""
        return (self.folder / name).is_file()

    def read(self, name: str) -> dict[str, Any]:
        """The JSON file ``name``."""
        path = self.folder / name
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path} is missing") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        return value

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write ``value`` to the JSON file ``name``, whole or not at all."""
        files.write_json(self.folder / name, value)

    def write_weights(self, state: Mapping[str, torch.Tensor]) -> None:
        """Write the model's state."""
        weights.write(self.folder / "weights.safetensors", state)

    def write_per_user(self, part: str, frame: pl.DataFrame) -> None:
        """Write per-user results of ``part``."""
        files.write(self.folder / f"per_user-{part}.parquet", frame.write_parquet)

    def write_samples(self, part: str, frame: pl.DataFrame) -> None:
        """Write the impressions of ``part``."""
        files.write(self.folder / f"samples-{part}.parquet", frame.write_parquet)

    def write_degrees(self, part: str, frame: pl.DataFrame) -> None:
        """Write the metrics of ``part`` by train degree."""
        files.write(self.folder / f"degrees-{part}.parquet", frame.write_parquet)

    def write_pairs(self, part: str, frame: pl.DataFrame) -> None:
        """Write the labelled pairs of ``part``."""
        files.write(self.pairs(part), frame.select("user_id", "item_id", "label").write_parquet)

    def stage(self, name: str) -> Path:
        """The folder for checkpoints of the stage ``name``; gone once the run is finished."""
        folder = self.folder / "checkpoints" / name
        with files.told(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and keep other processes from working in it until the block or this process ends.

        Raises UserError if one does. The lock is on the folder itself and leaves no file; where the file system knows
        no such locks, nothing is kept out.
        """
        with files.told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY)
        try:
            if fcntl is not None:
                _lock(handle, self.folder)
            yield
        finally:
            if fcntl is not None:
                with suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_UN)  # not only closed: a forked process may share the handle
            os.close(handle)

    def clear(self) -> None:
        """Remove the results of a run, first that it is finished; the folder stays, and with it the lock."""
        if not self.has("config.json"):
            return
        with files.told(self.folder):
            (self.folder / FINISHED).unlink(missing_ok=True)
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != "config.json":
                    path.unlink()

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write the metrics, which makes the run a finished one, and remove what only an interrupted one needs."""
        self.write(FINISHED, metrics)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        (self.folder / "fit.json").unlink(missing_ok=True)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process works in {folder}: wait until it ends, or choose another root") from None
    except OSError:  # no locks on this file system
        return
