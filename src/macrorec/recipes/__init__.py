"""Which runs do we claim? Functions ``<model>_<dataset>() -> RunConfig`` in this folder; nothing else lists them.

The recipe's name is the function's, with ``-`` for ``_``: ``gfcf_gowalla`` is ``gfcf-gowalla``. A module may also hold
``SPACE``, the settings that ``macrorec tune`` searches for its recipes, ``ABLATIONS``, settings that each take one part
of the model away or put another in its place, and ``SWEEPS``, settings with the values of a study.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from macrorec import configs
from macrorec.errors import ConfigError
from macrorec.run import RunConfig

Recipe = Callable[[], RunConfig]


def names() -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(_recipes())


def load(name: str) -> RunConfig:
    """The configuration of the recipe ``name``. Raises ConfigError for an unknown one, with the nearest."""
    return find(name)()


def find(name: str) -> Recipe:
    """The function behind ``name``; its docstring says what the recipe claims."""
    recipes = _recipes()
    if name not in recipes:
        raise ConfigError(configs.unknown(f"recipe {name!r}", name, recipes, "macrorec recipes"))
    return recipes[name]


def with_claims(part: str = "") -> dict[str, str]:
    """Name -> the first paragraph of what it claims, for all with ``part`` in their names; as the modules have them."""
    found = [(name, recipe) for name, recipe in _recipes().items() if part in name]
    found.sort(key=lambda pair: (pair[1].__module__, pair[1].__code__.co_firstlineno))
    return {name: " ".join((inspect.getdoc(recipe) or "").split("\n\n")[0].split()) for name, recipe in found}


def space(name: str) -> Mapping[str, Any]:
    """What ``macrorec tune`` searches for the recipe ``name``."""
    return getattr(inspect.getmodule(find(name)), "SPACE", {})


def ablations(name: str) -> tuple[str, ...]:
    """The settings, such as ``model.hop2=false``, that each change one part of the recipe ``name``."""
    whole = load(name)

    def changes(part: str) -> bool:
        without = configs.parse(RunConfig, configs.assign(configs.plain(whole), [part], RunConfig))
        return bool(without != whole)

    return tuple(filter(changes, getattr(inspect.getmodule(find(name)), "ABLATIONS", ())))


def sweeps(name: str) -> Mapping[str, str]:
    """The studies of the recipe ``name``: a setting and its values, with commas."""
    return getattr(inspect.getmodule(find(name)), "SWEEPS", {})


@cache
def _recipes() -> dict[str, Recipe]:
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {name.replace("_", "-"): recipe for module in modules for name, recipe in _of(module)}


def _of(module: ModuleType) -> list[tuple[str, Recipe]]:
    return [
        (name, function)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and function.__annotations__.get("return") in ("RunConfig", RunConfig)
        and not inspect.signature(function).parameters
    ]
