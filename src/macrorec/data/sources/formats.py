"""Which formats are there, and which one is a file of? A format is a module beside this one; see ``raw``."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import macrorec.data.sources as here
from macrorec.data.sources.raw import Head, check_text
from macrorec.errors import ConfigError, DataError


def formats() -> dict[str, ModuleType]:
    """All formats, by name: the modules beside this one that know how to ``scan``."""
    names = sorted(module.name for module in pkgutil.iter_modules(here.__path__))
    modules = {name: importlib.import_module(f"{here.__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "scan")}


def chosen(path: Path, start: Head, name: str) -> tuple[ModuleType, str]:
    """The format of ``path`` and why it is that; "" if it was declared. Raises where that is not clear."""
    known = formats()
    if name != "auto":
        if name not in known:
            raise ConfigError(f"unknown format {name!r}; allowed are auto, {', '.join(known)}")
        return known[name], ""
    ending = path.suffix.lower()
    for module in known.values():
        if ending and ending in module.EXTENSIONS:
            return module, f"by the ending {ending}"
    if not known["parquet"].looks(start):
        check_text(path, start.start)
    fitting = [module for module in known.values() if module.looks(start)]
    if len(fitting) == 1:
        return fitting[0], "by its first lines"
    candidates = ", ".join(name_of(module) for module in fitting) if fitting else "none of the formats"
    raise DataError(
        f"{path}: cannot tell the format: the first lines fit {candidates}; say format= one of {', '.join(known)}"
    )


def name_of(module: ModuleType) -> str:
    """The name of a format: its module's."""
    return module.__name__.rpartition(".")[2]


def separator_of(separator: str | None) -> str | None:
    """The separator that the user means: itself, or one of the words tab, space, comma."""
    named = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ","}
    separator = named.get(separator, separator) if separator is not None else None
    if separator is not None and separator != "::" and (len(separator.encode()) != 1 or separator in '\n\r"'):
        raise ConfigError(f"separator is {separator!r}; allowed is one character of ASCII, tab, space, or '::'")
    return separator
