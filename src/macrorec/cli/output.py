"""What does a command print? Lines for a reader, or one JSON object for a program."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer


def answer(result: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print ``result`` as one JSON object if ``as_json``, else ``lines``; always to standard output."""
    if as_json:
        typer.echo(json.dumps(plain(result), ensure_ascii=False, allow_nan=False))
    else:
        for line in lines:
            typer.echo(line)


def note(line: str) -> None:
    """Tell the user something that is not part of the answer: standard error."""
    typer.echo(line, err=True)


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with the cells of ``rows`` in columns two spaces apart; the first row is the head, numbers stand right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    right = [all(isinstance(row[c], int | float) for row in rows[1:]) for c in range(len(rows[0]))]
    width = [max(len(row[c]) for row in cells) for c in range(len(rows[0]))]
    return [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, width, right, strict=True)).rstrip()
        for row in cells
    ]


def cells(row: Mapping[Any, Any], columns: Iterable[Any] | None = None) -> list[Any]:
    """The cells of ``columns``, by default all, of a row: measured values with four digits, nothing for None."""
    values = row.values() if columns is None else map(row.get, columns)
    return ["" if value is None else f"{value:.4f}" if isinstance(value, float) else value for value in values]


def plain(value: Any) -> Any:
    """``value`` in JSON's own types: numbers of numpy and the like become Python's, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
