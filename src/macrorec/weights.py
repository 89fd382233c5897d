"""How do tensors rest on disk? As safetensors: a plain header and plain numbers, which cannot run code when read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from macrorec import files
from macrorec.errors import DataError


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` to ``path``, whole or not at all. Those that share memory are stored apart."""
    files.write(path, lambda temporary: save_file(_apart(tensors), temporary))


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of ``path``, on the CPU. Raises DataError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, on the CPU, no two of them in the same memory: what safetensors asks for."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        result[name] = plain.clone() if address in seen else plain
        seen.add(address)
    return result
