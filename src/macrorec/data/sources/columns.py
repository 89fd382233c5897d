"""Which column of a file is which of ours? One table of names, and the mapping it leads to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from macrorec.data.log import COLUMNS
from macrorec.errors import ConfigError, DataError

ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": ("user", "uid", "visitor_id", "visitor", "customer_id", "customer", "member_id", "reviewer_id"),
    "item_id": (
        *("item", "iid", "product_id", "product", "sku", "asin", "movie_id", "video_id", "artist_id", "track_id"),
        *("song_id", "book_id", "business_id", "article_id", "news_id"),
    ),
    "behavior": ("behaviour", "behavior_type", "feedback_type", "event", "event_type", "action"),
    "timestamp": ("datetime", "time", "ts", "date", "event_time", "unix_time", "created_at"),
    "weight": ("value", "count"),
    "label": ("rating", "stars", "click"),
}
"""Names that stand for ours, besides ours; compared without case, spaces, ``_`` and ``-``."""
BARE = ("customer", "visitor", "product")
"""Those that beside another one are a name for people, not an id."""


def meaning(name: str) -> str | None:
    """Which of ``COLUMNS`` the name ``name`` stands for, or None."""
    return _MEANING.get(plain_name(name))


def match(names: Sequence[str], wanted: Mapping[str, str], defaults: Mapping[str, str], where: str) -> dict[str, str]:
    """Ours -> the file's, for every column that is there: ``wanted`` first, then ``defaults``, then ``ALIASES``.

    ``wanted`` maps ours to the file's; an empty name leaves that column out. Raises ConfigError for an entry of
    ``wanted`` that fits nothing, DataError for a missing user or item column, and for two names with one meaning.
    """
    for ours, theirs in wanted.items():
        if ours not in COLUMNS:
            raise ConfigError(f"columns: {ours!r} is not a column of a log; allowed are {', '.join(COLUMNS)}")
        if theirs and theirs not in names:
            raise DataError(f"{where}: there is no column {theirs!r} for {ours}; the file has {listed(names)}")
    mapping: dict[str, str] = {}
    taken = {theirs for theirs in wanted.values() if theirs}
    for ours in COLUMNS:
        if ours in wanted:
            if wanted[ours]:
                mapping[ours] = wanted[ours]
            continue
        if ours in defaults:
            if defaults[ours] not in taken:
                mapping[ours] = defaults[ours]
            continue
        found = [name for name in names if meaning(name) == ours and name not in taken]
        exact = [name for name in found if plain_name(name) == plain_name(ours)]
        best = exact or [name for name in found if plain_name(name) not in BARE] or found
        if len(best) > 1:
            both = " and ".join(map(repr, best[:2]))
            raise DataError(f"{where}: both {both} could be {ours}; say which, such as {ours}={best[0]}")
        if best:
            mapping[ours] = best[0]
    for ours in ("user_id", "item_id"):
        if ours not in mapping:
            names_of = ", ".join((ours, *ALIASES[ours]))
            free = next((name for name in names if name not in taken and meaning(name) is None), "NAME")
            raise DataError(
                f"{where}: no column for {ours} (known names: {names_of}); the file has {listed(names)}; "
                f"say which, such as {ours}={free}"
            )
    return mapping


def check_names(names: Sequence[str], where: str) -> None:
    """Raise DataError where a file has no columns, or two of one name."""
    if not names:
        raise DataError(f"{where}: the file has no columns")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: the header has the column {name[:80]!r} twice; rename one")
        seen.add(name)


def plain_name(name: str) -> str:
    """``name`` as it is compared."""
    return re.sub(r"[\s_-]", "", name).casefold()


def listed(names: Sequence[str]) -> str:
    """``names`` in a message: the first dozen, and how many more there are."""
    shown = ", ".join(repr(name[:40]) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "none"


_MEANING = {plain_name(name): ours for ours, names in ALIASES.items() for name in (ours, *names)}
