"""One paper, one file; the file name is the model's name. ``load`` finds it; there is no registry."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from macrorec.api import Model
from macrorec.errors import ConfigError


def names() -> list[str]:
    """Names of all models, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> type[Model]:
    """The model class in ``models/<name>.py``. Raises ConfigError for an unknown name, with the nearest known one."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown model {name!r}: {hint}known models are {', '.join(known)}")
    model: type[Model] = importlib.import_module(f"{__name__}.{name}").MODEL
    return model


def name_of(model: type[Model]) -> str:
    """The file name of a model class, which is the model's name."""
    return model.__module__.rpartition(".")[2]
