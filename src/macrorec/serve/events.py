"""What can happen, and is it well told? An event, a new item, a user who leaves; and the checks at the edge."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from macrorec.data.log import COLUMNS, Behavior
from macrorec.data.sources.columns import meaning
from macrorec.errors import UserError

LONGEST_ID = 256
"""Characters."""
LONGEST_TITLE = 1_000
"""Characters."""
AHEAD = 86_400
"""Seconds that a sender's clock may be ahead of ours."""
_LARGEST = 3.4e38
"""Weights and labels become float32."""
_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_OWN = frozenset({*COLUMNS, "source", "offset"})
_IGNORED = frozenset({"comment", "updated"})
"""Gorse sends them; nothing here reads them."""
_MEANING: dict[str, str | None] = {}
"""Field name -> ours; filled as names come, up to ``_MOST_NAMES``."""
_MOST_NAMES = 1_000


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that a user did with an item."""

    user_id: str
    item_id: str
    behavior: str
    timestamp: int | None = None
    """Unix seconds; None: when the log receives it."""
    weight: float = 1.0
    label: float | None = None
    key: bytes | None = None
    """The same key, the same event: it is counted once. The log keeps a hash of it, apart from the event."""
    source: str | None = None
    """With ``offset``: where it comes from; counted once. Kept by the log apart from the event."""
    offset: int | None = None


class ItemAnnounced(msgspec.Struct, frozen=True, gc=False):
    """An item that is new, or whose category or title is."""

    item_id: str
    category: str | None = None
    title: str | None = None
    timestamp: int | None = None
    """Unix seconds; None: when the log receives it."""


class Forgotten(msgspec.Struct, frozen=True, gc=False):
    """A user was removed."""

    user: str
    """``hidden`` of the user's id by the log's secret; the id itself is nowhere any more."""
    timestamp: int | None = None


Entry = Event | ItemAnnounced | Forgotten


class EventError(UserError):
    """An entry that cannot be taken: ``index`` in what was sent, ``field``, and the ``reason``, which is one line."""

    exit_code = 3

    def __init__(self, reason: str, index: int = 0, field: str | None = None) -> None:
        super().__init__(f"event {index}: {reason}")
        self.reason, self.index, self.field = reason, index, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """Which events are taken."""

    behaviors: tuple[Behavior, ...] = ()
    """Those that may occur; the last is what an event is that does not say. (): any, and each says."""
    longest_id: int = LONGEST_ID
    """In characters."""
    oldest: int = 0
    """Unix seconds."""
    newest: int | None = None
    """Unix seconds; None: ``AHEAD`` from now."""
    users_are_text: bool = True
    """Whether user ids are text; else they are integers of 64 bits, written "7" or 7, never "007"."""
    items_are_text: bool = True
    """Likewise for items."""
    extra: bool = False
    """Whether fields that mean nothing to us, or what another does, are passed over; else they are refused."""

    def check(self, raw: Any, index: int = 0, key: bytes | None = None, *, behavior: str | None = None) -> Event:
        """``raw``, a mapping by our names or those that stand for them, as an event. Raises EventError.

        ``behavior``: what it is if it does not say.
        """
        try:
            return self._checked(raw, key, behavior)
        except EventError as error:
            raise EventError(error.reason, index, error.field) from None

    def check_all(self, raws: Sequence[Any], key: bytes | None = None) -> list[Event]:
        """All of ``raws``, or EventError for the first that cannot be taken. ``key``: of all, and each gets its own."""
        keys = (None if key is None else key + n.to_bytes(4, "big") for n in range(len(raws)))
        return [self.check(raw, n, own) for n, (raw, own) in enumerate(zip(raws, keys, strict=True))]

    def check_item(self, raw: Any, index: int = 0) -> ItemAnnounced:
        """``raw``, anything with the fields of ``ItemAnnounced``, as one. Raises EventError."""
        names = ItemAnnounced.__struct_fields__
        given = raw if isinstance(raw, Mapping) else {name: getattr(raw, name, None) for name in names}
        try:
            unknown = [name for name in given if name not in names]
            if unknown and not self.extra:
                raise EventError(f"unknown field {_shown(unknown[0])}; known are {', '.join(names)}")
            item_id = self.id_of(given.get("item_id"), "item_id", self.items_are_text)
            category, title = given.get("category"), given.get("title")
            if title is not None and not (isinstance(title, str) and len(title) <= LONGEST_TITLE):
                raise EventError(f"title is text of at most {LONGEST_TITLE} characters", field="title")
            category = None if category is None else self.id_of(category, "category")
            title = None if title is None else _UNWANTED.sub(" ", title)
            return ItemAnnounced(item_id, category, title, self._time(given.get("timestamp")))
        except EventError as error:
            raise EventError(error.reason, index, error.field) from None

    def _checked(self, raw: Any, key: bytes | None, behavior: str | None) -> Event:
        fields = self._named(raw)
        user_id = self.id_of(fields.get("user_id"), "user_id", self.users_are_text)
        item_id = self.id_of(fields.get("item_id"), "item_id", self.items_are_text)
        weight, label = fields.get("weight"), fields.get("label")
        source, offset = self._place(fields)
        return Event(
            user_id,
            item_id,
            self._behavior(behavior if fields.get("behavior") is None else fields["behavior"]),
            self._time(fields.get("timestamp")),
            1.0 if weight is None else _number(weight, "weight", least=0.0),
            None if label is None else _number(float(label) if isinstance(label, bool) else label, "label"),
            key,
            source,
            offset,
        )

    def _named(self, raw: Any) -> dict[str, Any]:
        """The fields by our names."""
        if isinstance(raw, msgspec.Struct):
            raw = {name: getattr(raw, name) for name in raw.__struct_fields__ if name != "key"}
        if not isinstance(raw, Mapping):
            raise EventError(f"an event is an object with fields, not {_kind(raw)}")
        fields: dict[str, Any] = {}
        for name, value in raw.items():
            ours = name if name in _OWN else _ours(name)
            if ours is None:
                if self.extra or (isinstance(name, str) and name.casefold() in _IGNORED):
                    continue
                known = ", ".join((*COLUMNS, "source", "offset"))
                raise EventError(f"unknown field {_shown(name)}; known are {known}")
            if ours in fields and self.extra:
                fields[ours] = value if name == ours else fields[ours]
                continue
            if ours in fields:
                raise EventError(f"{ours} is given twice, once as {_shown(name)}", field=ours)
            fields[ours] = value
        return fields

    def id_of(self, value: Any, field: str, is_text: bool = True) -> str:
        """``value`` as an id, of text or of integers. Raises EventError."""
        if type(value) is int:
            value = str(value) if abs(value) < 1 << 63 else "a large number"
            if value == "a large number":
                raise EventError(f"{field} is beyond 64 bits", field=field)
        if not isinstance(value, str):
            raise EventError(
                f"{field} is missing" if value is None else f"{field} is text, not {_kind(value)}", field=field
            )
        if not value or value.isspace():
            raise EventError(f"{field} is blank", field=field)
        if len(value) > self.longest_id:
            raise EventError(
                f"{field} has {len(value):,} characters; at most {self.longest_id} are allowed", field=field
            )
        if not (value.isascii() and value.isprintable()) and _UNWANTED.search(value):
            raise EventError(f"{field} has a control character, or half of a pair", field=field)
        if not is_text and not (_INTEGER.fullmatch(value) and -(1 << 63) <= int(value) < 1 << 63):
            raise EventError(f"{field} {_shown(value)} is not an integer, as the ids of the model are", field=field)
        return value

    def _behavior(self, value: Any) -> str:
        names = [behavior.name for behavior in self.behaviors]
        if value is None:
            if not names:
                raise EventError("behavior is missing", field="behavior")
            return names[-1]
        if not isinstance(value, str):
            raise EventError(f"behavior is text, not {_kind(value)}", field="behavior")
        if names and value not in names:
            allowed = ", ".join(map(repr, names))
            raise EventError(f"unknown behaviour {_shown(value)}; allowed are {allowed}", field="behavior")
        return value if names else self.id_of(value, "behavior")

    def _time(self, value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, str):
            value = _iso(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            value = int(value)
        if type(value) is not int:
            raise EventError(f"timestamp is whole unix seconds, or ISO 8601, not {_kind(value)}", field="timestamp")
        newest = int(time.time()) + AHEAD if self.newest is None else self.newest
        if not self.oldest <= value <= newest:
            hint = "; is it in milliseconds?" if value > newest * 100 > 0 else ""
            raise EventError(
                f"timestamp {_shown(value)} is not between {self.oldest} and {newest}{hint}", field="timestamp"
            )
        return value

    def _place(self, fields: Mapping[str, Any]) -> tuple[str | None, int | None]:
        source, offset = fields.get("source"), fields.get("offset")
        if source is None and offset is None:
            return None, None
        if source is None or offset is None:
            raise EventError("source and offset go together", field="offset" if offset is None else "source")
        if type(offset) is not int or not 0 <= offset < 1 << 62:
            raise EventError(f"offset is an integer of at least 0, not {_shown(offset)}", field="offset")
        return self.id_of(source, "source"), offset


def hidden(user_id: str, secret: bytes) -> str:
    """What stands for a user who has left: a keyed hash, 32 hexadecimal digits.

    It tells nothing to whom has not the log's ``secret``; whom has it can test whether a given id was it.
    """
    return hashlib.blake2b(user_id.encode(), key=secret, digest_size=16).hexdigest()


def _ours(name: Any) -> str | None:
    """Which of our fields a name stands for."""
    if not isinstance(name, str) or len(name) > 64:
        return None
    if name not in _MEANING:
        if len(_MEANING) >= _MOST_NAMES:
            return meaning(name)
        _MEANING[name] = meaning(name)
    return _MEANING[name]


def _number(value: Any, field: str, least: float = -_LARGEST) -> float:
    if type(value) is not float and type(value) is not int:
        raise EventError(f"{field} is a number, not {_kind(value)}", field=field)
    if not least <= value <= _LARGEST:  # also false of NaN
        rule = "a finite number" if least < 0 else "a finite number of at least 0"
        raise EventError(f"{field} {_shown(value)} is not {rule}", field=field)
    return float(value)


def _iso(value: str) -> int:
    """Unix seconds of a time in ISO 8601, in UTC where it does not say."""
    try:
        when = datetime.fromisoformat(value.strip()[:64])
        return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise EventError(f"timestamp {_shown(value)} is neither unix seconds nor ISO 8601", field="timestamp") from None


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "an array",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    """A value in a message: short, and harmless in a terminal."""
    text = ascii(value) if type(value) is not int or abs(value) < 1 << 64 else "a number beyond 64 bits"
    return text if len(text) <= 60 else text[:57] + "..."
