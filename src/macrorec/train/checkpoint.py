"""How does training survive a kill? One safetensors file holds tensors and state, so that one rename keeps both true.

A checkpoint is written to a temporary file, made durable, and renamed; the one before it is kept until then, and
afterwards as ``PREVIOUS``. A digest over state and tensors finds truncated files and flipped bits.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from macrorec.errors import DataError, ResourceError
from macrorec.files import flush

CURRENT, PREVIOUS, TEMPORARY = "checkpoint.safetensors", "checkpoint.previous.safetensors", "checkpoint.tmp"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What ``write`` was given."""

    tensors: Mapping[str, Tensor]
    """By name, on the CPU."""
    state: Mapping[str, Any]
    """Plain values, as JSON holds them."""


def write(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Put a checkpoint into ``folder``, wholly or not at all. Raises ResourceError if it cannot be written."""
    text = json.dumps(state)
    flat = _detached(tensors)
    temporary = folder / TEMPORARY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(flat, temporary, metadata={"state": text, "sha256": _digest(flat, text)})
        flush(temporary)
        if (folder / CURRENT).exists():
            (folder / CURRENT).replace(folder / PREVIOUS)
        temporary.replace(folder / CURRENT)
        flush(folder)
    except (OSError, safetensors.SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ResourceError(f"cannot write a checkpoint to {folder}: {error}") from error


def read(folder: Path) -> Checkpoint | None:
    """The newest sound checkpoint in ``folder``, None if there is none at all.

    A damaged file whose predecessor is sound is deleted, with a warning, lest it be kept in the predecessor's place;
    without a sound predecessor it stays, and DataError is raised.
    """
    damage: list[str] = []
    for path in (folder / CURRENT, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            found = _read(path)
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            damage.append(f"{path} ({' '.join(str(error).split())})")
            continue
        if damage:
            log.warning("damaged checkpoint %s: going on from the one before, %s", damage[0], path.name)
            (folder / CURRENT).unlink()
        return found
    if damage:
        raise DataError(f"damaged checkpoint {', '.join(damage)}: delete it to train from the beginning")
    return None


def remove(folder: Path) -> None:
    """Delete all checkpoints in ``folder``."""
    for name in (CURRENT, PREVIOUS, TEMPORARY):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> Checkpoint:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if _digest(tensors, metadata["state"]) != metadata["sha256"]:
        raise ValueError("its content does not match its digest")
    return Checkpoint(tensors, json.loads(metadata["state"]))


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Dense CPU copies or views; safetensors refuses two names for one storage."""
    flat: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        flat[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return flat


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    hasher = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
