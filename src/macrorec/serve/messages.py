"""What do requests and answers say in JSON? These classes are decoded, encoded, and shown by OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from macrorec.serve.events import LONGEST_ID, LONGEST_TITLE

PATTERN = r"^[!-~]([ -~]*[!-~])?$"
"""What a client may rely on for ids: printable ASCII that neither begins nor ends with a space. Other letters are
taken, too; control characters, halves of pairs, and blanks are not."""
Id = Annotated[str, Meta(min_length=1, max_length=LONGEST_ID, extra_json_schema={"pattern": PATTERN})]
"""Checked where events are checked: ``pattern`` is for readers alone."""


class RankedItem(msgspec.Struct):
    """One item of an answer."""

    item_id: str
    score: float
    rank: int
    """Counts from 1."""
    reasons: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    title: str | msgspec.UnsetType = msgspec.UNSET
    """The item's name for people, where it has one."""


class Answered(msgspec.Struct):
    """Items, best first, and what made the answer."""

    items: list[RankedItem]
    path: str
    """``model``, ``fold_in``, ``macro_fallback``, or ``popular``."""
    version: str
    """Of the model: 12 hexadecimal digits."""
    position: int
    """Of the last entry of the log that the answer knows at least."""
    ranked: int = 0
    """So many of the best were put in order by the ranker."""
    degraded: list[str] = []
    """Stages left out for want of time."""


class EventBody(msgspec.Struct, forbid_unknown_fields=True):
    """Something that a user did with an item. Other names are understood, too: Gorse's FeedbackType, UserId, ItemId,
    Timestamp and Value among them."""

    user_id: Id
    item_id: Id
    behavior: Annotated[str | None, Meta(description="One of the log's; by default the target.")] = None
    timestamp: Annotated[
        int | str | None, Meta(description="Unix seconds, or ISO 8601; by default when the server receives it.")
    ] = None
    weight: Annotated[float, Meta(ge=0, le=1e30)] = 1.0
    label: Annotated[float, Meta(ge=-1e30, le=1e30)] | None = None
    source: Annotated[Id | None, Meta(description="With offset: where it comes from; counted once.")] = None
    offset: Annotated[int, Meta(ge=0, lt=1 << 62)] | None = None


class Stored(msgspec.Struct):
    """Events are durable, and the next answer knows them."""

    added: int
    duplicates: int
    """Events that were stored before, by their key or their source and offset."""
    position: int
    """Of the last one in the log."""


class ItemBody(msgspec.Struct, forbid_unknown_fields=True):
    """An item that is new, or whose category or title is."""

    item_id: Id
    category: Id | None = None
    title: Annotated[str, Meta(max_length=LONGEST_TITLE)] | None = None
    timestamp: Annotated[int, Meta(ge=0, le=1 << 40)] | None = None
    """Unix seconds."""


class RankBody(msgspec.Struct, forbid_unknown_fields=True):
    """Items to be put in order for a user."""

    user_id: Id
    item_ids: list[Id]


class ReloadBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which bundle to load."""

    bundle: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^/\\\x00]+$")] | None = None
    """A name in the server's folder of bundles; by default the one that is served, read again."""


class Forgot(msgspec.Struct):
    """A user was removed from log, state and snapshots."""

    events: int


class Snapshot(msgspec.Struct):
    """The state is on disk."""

    position: int
    """Of the last entry of the log that it covers."""


class Serving(msgspec.Struct):
    """Which model answers from now on."""

    version: str
