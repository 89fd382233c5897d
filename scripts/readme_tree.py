"""Which file answers which question? Writes the tree of README.md from the first docstring line of every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?<=```text\n)src/macrorec/.*?(?=```)", re.DOTALL)
COLUMN = 24


def tree(package: Path) -> str:
    """The source files below ``package``, one line each; a folder's line is the one of its ``__init__.py``."""
    return "".join(f"{name:<{COLUMN}}{text}\n" for name, text in _lines(package, 0, f"src/{package.name}/"))


def replaced(readme: str, block: str) -> str:
    """``readme`` with ``block`` as the content of its tree."""
    if len(BLOCK.findall(readme)) != 1:
        raise ValueError("README.md must have one fenced text block that starts with src/macrorec/")
    return BLOCK.sub(lambda _: block, readme)


def _lines(folder: Path, depth: int, name: str) -> Iterator[tuple[str, str]]:
    init = folder / "__init__.py"
    yield "  " * depth + name, _first_line(init) if init.exists() else ""
    files = [path for path in folder.glob("*.py") if path != init]
    folders = [path for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.py"))]
    for path in sorted(files):
        yield "  " * (depth + 1) + path.name, _first_line(path)
    for path in sorted(folders):
        yield from _lines(path, depth + 1, f"{path.name}/")


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].strip()


if __name__ == "__main__":
    readme = ROOT / "README.md"
    block = tree(ROOT / "src" / "macrorec")
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), block), encoding="utf-8")
