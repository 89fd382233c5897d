"""How does a file or a folder appear whole, or not at all? Written beside its place, flushed to disk, renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
from safetensors import SafetensorError

from macrorec.errors import ResourceError, UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while writing ``path`` into one line: ResourceError for a full disk."""
    try:
        yield
    except (OSError, SafetensorError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        if getattr(error, "errno", None) in _FULL or "No space left" in reason or "os error 28" in reason:
            raise ResourceError(
                f"cannot write {path}: the disk is full; free some space or choose another folder"
            ) from error
        raise UserError(f"cannot write {path}: {reason}") from error


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """``fill`` a temporary file beside ``path``, then rename it; ``path`` never holds half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with told(path):
        try:
            fill(temporary)
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, keys in the order given."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def may_become(folder: Path, marker: str) -> None:
    """Raise UserError where ``new_folder`` would: to be called before long work whose result goes there."""
    if folder.exists() and not (folder.is_dir() and ((folder / marker).is_file() or not any(folder.iterdir()))):
        raise UserError(
            f"cannot write {folder}: it exists and is not a folder that macrorec wrote; choose another name"
        )
    with told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def new_folder(folder: Path, marker: str) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when the block ends well, and vanishes when it does not.

    An existing ``folder`` is replaced only if it is empty or holds a file named ``marker``; else UserError.
    """
    may_become(folder, marker)
    with told(folder):
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield temporary
        with told(folder):
            for path in temporary.rglob("*"):
                flush(path)
            flush(temporary)
            temporary.chmod(0o755)
            if folder.exists():
                old = temporary.with_name(temporary.name + ".old")
                folder.rename(old)
                try:
                    temporary.rename(folder)
                except OSError:
                    old.rename(folder)
                    raise
                shutil.rmtree(old)
            else:
                temporary.rename(folder)
            flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
