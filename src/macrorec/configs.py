"""How does text become a typed config, and back? Strictly: an unknown key or a wrong type is one line with its path."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from macrorec import models
from macrorec.errors import ConfigError, UserError

T = TypeVar("T")

_MANY = 20
"""More legal names than these are not listed where some are near."""
TAGS = ("kind", "name")
"""Fields that say which dataclass a table is: ``kind`` among the alternatives of a field, ``name`` among the models."""


@dataclasses.dataclass(frozen=True)
class AnyModel:
    """Marks a field that holds the ``Config`` of some model: ``model: Annotated[Any, AnyModel()]``."""


# --- to plain values -------------------------------------------------------------------------------------------------


def plain(config: Any) -> Any:
    """``config`` as values that JSON knows: dataclasses become tables, tuples become lists, models carry their name."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = _hints(type(config))
        return {
            field.name: plain_model(value) if _is_model(hints[field.name]) else plain(value)
            for field in dataclasses.fields(config)
            for value in (getattr(config, field.name),)
        }
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def plain_model(config: Any) -> dict[str, Any]:
    """A model's config as a table that begins with the model's name."""
    return {"name": model_name(config), **plain(config)}


def model_name(config: Any) -> str:
    """The name of the model whose ``Config`` this is: its file's name."""
    return type(config).__module__.rpartition(".")[2]


def hash8(table: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that depend on content alone, not on the order of keys."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:8]


# --- from plain values -----------------------------------------------------------------------------------------------


def parse(kind: type[T], table: Any, path: str = "") -> T:
    """The dataclass ``kind`` from ``table``. Raises ConfigError naming the dotted path and what is legal there."""
    result: T = _parse(kind, table, path)
    return result


def parse_model(table: Any, path: str = "model") -> Any:
    """The ``Config`` of the model that ``table["name"]`` names."""
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise ConfigError(f"{path} must be a table with the key 'name'; models are {', '.join(models.names())}")
    rest = {key: value for key, value in table.items() if key != "name"}
    return _parse(models.load(table["name"]).Config, rest, path)


def _parse(kind: Any, value: Any, path: str) -> Any:
    if _is_model(kind):
        return parse_model(value, path)
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, path)
    arguments = typing.get_args(kind)
    if _is_union(kind) and any(dataclasses.is_dataclass(_bare(a)) for a in arguments):
        if value in (None, "none") and type(None) in arguments:
            return None
        return _parse(_alternative(arguments, value, path), value, path)
    if typing.get_origin(kind) is tuple and arguments[1:] == (...,) and _holds_dataclass(arguments[0]):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} must be a list; got {value!r}")
        return tuple(_parse(arguments[0], item, f"{path}.{n}") for n, item in enumerate(value))
    return _parse_leaf(kind, value, path)


def _parse_dataclass(kind: Any, table: Any, path: str) -> Any:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path or 'a configuration'} must be a table; got {table!r}")
    legal = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in table:
        if key not in legal:
            raise ConfigError(unknown(f"key {_join(path, key)!r}", str(key), legal))
    hints = _hints(kind)
    missing = [
        name
        for name, field in legal.items()
        if name not in table and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{_join(path, missing[0])} is missing, and has no default")
    values = {key: _parse(hints[key], value, _join(path, key)) for key, value in table.items()}
    try:
        return kind(**values)
    except UserError as error:
        raise type(error)(f"{path}: {error}" if path else str(error)) from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


def _parse_leaf(kind: Any, value: Any, path: str) -> Any:
    if value == "none" and type(None) in typing.get_args(kind):
        return None  # TOML has no null
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = json.dumps(str(value))
    try:
        parsed = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(f"{path}: {message}; got {value!r}") from error
    if isinstance(parsed, float) and math.isnan(parsed):
        raise ConfigError(f"{path}: nan is not a value")
    return parsed


def _alternative(arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    """Which dataclass of a union ``value`` is: by its tag ``kind``, or where they have none, by its keys."""
    classes = [_bare(argument) for argument in arguments if dataclasses.is_dataclass(_bare(argument))]
    if len(classes) == 1:
        return classes[0]
    if not all("kind" in _hints(cls) for cls in classes):
        keys = set(value) if isinstance(value, Mapping) else set()
        return max(classes, key=lambda cls: len(keys & set(_hints(cls))))
    by_kind = {tag: cls for cls in classes for tag in typing.get_args(_hints(cls)["kind"])}
    if not isinstance(value, Mapping) or "kind" not in value:
        raise ConfigError(f"{path} must be a table with the key 'kind', one of {', '.join(by_kind)}; got {value!r}")
    if value["kind"] not in by_kind:
        raise ConfigError(unknown(f"value {value['kind']!r} of {path}.kind", str(value["kind"]), by_kind))
    return by_kind[value["kind"]]


# --- files and --set -------------------------------------------------------------------------------------------------


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError with the line of a syntax error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def assign(table: dict[str, Any], assignments: Iterable[str], of: Any) -> dict[str, Any]:
    """``table``, plain values of the dataclass ``of``, with each ``a.b=value`` put in place.

    Values are in TOML syntax, or text without quotes. Setting a tag (``model.name``, ``split.test.kind``) starts its
    table anew, for the other keys belong to the old tag.
    """
    result: dict[str, Any] = json.loads(json.dumps(table))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set takes key=value, such as model.dim=32; got {assignment!r}")
        place = result
        for depth, key in enumerate(keys[:-1]):
            if not isinstance(place.get(key), dict):
                raise ConfigError(unknown(f"key {'.'.join(keys[: depth + 1])!r}", key, _tables(place)))
            place = place[key]
        old, new = place.get(keys[-1]), value_of(text)
        if isinstance(old, str) and not isinstance(new, str):
            new = text
        if old not in (None, new) and _is_tag(of, keys):
            place.clear()
        place[keys[-1]] = new
    return result


def _is_tag(of: Any, keys: list[str]) -> bool:
    """Whether the value at ``keys`` says which of several dataclasses the table around it is."""
    kinds = [of]
    for key in keys[:-1]:
        hints = [_hints(kind)[key] for kind in kinds if key in _hints(kind)]
        if any(map(_is_model, hints)):
            return keys[-1] == "name"
        inside = [argument for hint in map(_bare, hints) for argument in (typing.get_args(hint) or [hint])]
        kinds = [kind for kind in map(_bare, inside) if dataclasses.is_dataclass(kind)]
    return keys[-1] in TAGS and len(kinds) > 1


def value_of(text: str) -> Any:
    """``text`` as a TOML value; what is no TOML value is the text itself."""
    try:
        parsed = tomllib.loads(f"x = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["x"] if parsed.keys() == {"x"} else text


def unknown(what: str, given: str, legal: Iterable[str], lister: str = "") -> str:
    """The one line for a name that is not among ``legal``: the nearest, and all of them unless they are many.

    Where many are legal and none is near, ``lister`` is the command that lists them.
    """
    names = sorted(map(str, legal))
    near = difflib.get_close_matches(given, names) or [name for name in names if given and given in name]
    if len(names) > _MANY and near:
        return f"unknown {what}: did you mean {' or '.join(map(repr, near[:3]))}?"
    if len(names) > _MANY and lister:
        return f"unknown {what}: {lister!r} lists the {len(names)} that there are, such as {names[0]!r}"
    return f"unknown {what}: {f'did you mean {near[0]!r}? ' if near else ''}legal are {', '.join(names) or 'none'}"


# --- types -----------------------------------------------------------------------------------------------------------


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _is_model(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Annotated and any(isinstance(m, AnyModel) for m in kind.__metadata__)


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _holds_dataclass(kind: Any) -> bool:
    return dataclasses.is_dataclass(_bare(kind)) or any(_holds_dataclass(a) for a in typing.get_args(kind))


def _tables(place: Mapping[str, Any]) -> list[str]:
    return [key for key, value in place.items() if isinstance(value, dict)]


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
