"""How does a state rest on disk, so that a start need not apply the whole log? As a folder, whole or not there.

snapshot-<position>/
  tensors.safetensors    arrays by name
  <name>.parquet         a frame each
  meta.json              plain values
  manifest.json          format, position, sha256 of every other file; written last

Processes that share a folder take turns: whatever reads or changes it is done ``alone``. A snapshot holds the users
that its state knows: after one was forgotten, write a new one, then ``discard`` those before it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from macrorec import files, weights
from macrorec.errors import DataError, ResourceError

FORMAT = "macrorec-snapshot 1"
MANIFEST = "manifest.json"
LOCK = ".lock"
KEPT = 2
"""So many are kept: should the newest be damaged, there is the one before."""
_NAME = re.compile(r"snapshot-(\d{1,19})")
_FRAME = re.compile(r"[a-z][a-z0-9_-]*")


@contextmanager
def alone(folder: str | Path, patience: float = 300.0) -> Iterator[None]:
    """Have the folder for oneself; made if it is not there. Raises ResourceError where another has it for too long."""
    home = Path(folder)
    with files.told(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ResourceError(f"another process has had {home} for {patience:g} s") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A state as it was after the log's entry at ``position``."""

    position: int
    tensors: Mapping[str, Tensor]
    frames: Mapping[str, pl.DataFrame]
    meta: Mapping[str, Any]
    skipped: tuple[str, ...] = ()
    """What was wrong with newer ones, a line each."""


def write(
    folder: str | Path,
    position: int,
    tensors: Mapping[str, Tensor],
    frames: Mapping[str, pl.DataFrame],
    meta: Mapping[str, Any],
) -> Path:
    """Write a snapshot into ``folder``, and remove all but the newest ``KEPT``; its own folder.

    Raises ResourceError where the disk is full; what was there stays then.
    """
    home = Path(folder)
    for name in frames:
        assert _FRAME.fullmatch(name) and name != "manifest", name
    with files.told(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(home)
    place = home / f"snapshot-{position}"
    with files.new_folder(place, MANIFEST) as new:
        weights.write(new / "tensors.safetensors", tensors)
        for name, frame in frames.items():
            files.write(new / f"{name}.parquet", partial(frame.write_parquet, compression="lz4"))
        files.write_json(new / "meta.json", dict(meta))
        sums = {path.name: files.sha256(path) for path in sorted(new.iterdir())}
        files.write_json(new / MANIFEST, {"format": FORMAT, "position": position, "sha256": sums})
    for old in positions(home)[:-KEPT]:
        _remove(home / f"snapshot-{old}")
    return place


def positions(folder: str | Path) -> tuple[int, ...]:
    """The positions of the snapshots in ``folder``, rising. The log may be compacted before the first plus one."""
    home = Path(folder)
    names = [path.name for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    return tuple(sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match))


def latest(folder: str | Path) -> Snapshot | None:
    """The newest snapshot that is sound; None where there is none at all.

    Raises DataError where all are damaged: whoever wants to start from the log alone has to remove them.
    """
    skipped: list[str] = []
    for position in reversed(positions(folder)):
        try:
            return _read(Path(folder) / f"snapshot-{position}", position, tuple(skipped))
        except DataError as error:
            skipped.append(str(error))
    if skipped:
        raise DataError(f"every snapshot in {folder} is damaged: {'; '.join(skipped)}; put back a copy, or remove them")
    return None


def discard(folder: str | Path, before: int) -> int:
    """Remove the snapshots at positions below ``before``, and what is left of unfinished ones; how many there were."""
    home = Path(folder)
    old = [position for position in positions(home) if position < before]
    for position in old:
        _remove(home / f"snapshot-{position}")
    _sweep(home)
    return len(old)


def _read(place: Path, position: int, skipped: tuple[str, ...]) -> Snapshot:
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        sums = manifest["sha256"]
        if manifest["format"] != FORMAT or manifest["position"] != position:
            raise DataError(f"{place} is not a snapshot of position {position} in the format {FORMAT!r}")
        there = {path.name for path in place.iterdir()} - {MANIFEST}
        if there != set(sums):
            raise DataError(f"{place} has not the files that its manifest names")
        for name, told in sums.items():
            if files.sha256(place / name) != told:
                raise DataError(f"{place / name} is not what was written")
        frames = {path.stem: pl.read_parquet(path) for path in place.glob("*.parquet")}
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place} cannot be read: {str(error).splitlines()[0]}") from error
    return Snapshot(position, weights.read(place / "tensors.safetensors"), frames, meta, skipped)


def _remove(place: Path) -> None:
    """Remove a snapshot; one that is half removed has not its name any more."""
    gone = place.with_name(f".{place.name}.gone.tmp")
    with files.told(place):
        place.rename(gone)
        shutil.rmtree(gone)
        files.flush(place.parent)


def _sweep(home: Path) -> None:
    """Remove what processes that were killed left behind."""
    for left in home.glob(".snapshot-*"):
        shutil.rmtree(left, ignore_errors=True)
