"""What does the service answer? Ranked items, the path that made them, what was left out, how long each stage took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from macrorec.errors import UserError

Path = Literal["model", "fold_in", "macro_fallback", "popular"]
"""``model``           the model's own row of a user who has done nothing since the fit
``fold_in``         the model applied to the user's whole history, for a user with events since the fit, or a new one
``macro_fallback``  what is popular in the groups that the user's events are of, where the model cannot fold in
``popular``         users per item, for somebody of whom nothing is known
"""
Stage = Literal["state", "retrieve", "rank", "reasons"]
"""``state`` looks up what is known of the user, ``retrieve`` finds candidates, ``rank`` orders them, ``reasons`` says
why."""


class UnknownItem(UserError):
    """An item that is neither of the model nor announced since."""


class NotReady(UserError):
    """The service has not finished starting, or is closed."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One item of an answer."""

    item_id: str
    score: float
    """The ranker's logit where ``rank`` was not left out; else the retriever's score; on the path ``popular`` without a
    ranker a number of users. Scores of one answer are of one kind, and never rise, but for the tail of a long page: see
    ``Answer.ranked``."""
    rank: int
    """From 1; counts on over pages."""
    reasons: list[dict[str, Any]] | None = None
    """The strongest rows of ``Service.explain``, where they were asked for."""
    title: str | None = None
    """The item's name for people, where it has one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Items for one user, the best first; fewer than asked for where items run out."""

    user_id: str
    items: tuple[Ranked, ...]
    path: Path
    version: str
    """Of the model: all of the answer is of one version."""
    position: int
    """Of the last entry of the log that the answer knows at least."""
    ranked: int = 0
    """So many of the best were put in order by the ranker; what follows them stands in the order of retrieval."""
    degraded: tuple[Stage, ...] = ()
    """Stages that were left out for want of time."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds per stage."""
