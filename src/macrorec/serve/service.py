"""How does one user's request become an answer? State, retrieve, rank; and how do events, models, and users come and go?

Plain Python: no HTTP. Every method may be called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as Folder
from typing import Any

from macrorec.serve.answer import Answer as Answer
from macrorec.serve.answer import NotReady as NotReady
from macrorec.serve.answer import Path as Path
from macrorec.serve.answer import Ranked as Ranked
from macrorec.serve.answer import Stage as Stage
from macrorec.serve.answer import UnknownItem as UnknownItem


class Service:
    """A model, what has happened since its fit, and a durable log of it."""

    def __init__(
        self, bundle: str | Folder, log: Any, data: str | Folder | None = None, *, candidates: int = 200
    ) -> None:
        """Load the bundle, the newest snapshot in ``data``, and what the log has beyond it.

        ``candidates``: how many items are retrieved for the ranker. Raises DataError for a damaged bundle.
        """
        raise NotImplementedError

    # --- reading ---

    def recommend(
        self,
        user_id: str,
        n: int = 10,
        offset: int = 0,
        *,
        categories: Sequence[str] | None = None,
        only: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        seen: bool = False,
        deadline: float | None = None,
        reasons: bool = False,
    ) -> Answer:
        """The items ``offset + 1 : offset + n`` for a user; anybody gets an answer.

        ``categories``: of these groups only; ``only``, ``exclude``: ids, unknown ones are passed over; ``seen``: whether
        the user may be shown what it has already; ``deadline``: seconds of ``time.monotonic`` at which stages are left
        out rather than awaited.
        """
        raise NotImplementedError

    def rank(self, user_id: str, item_ids: Sequence[str], *, deadline: float | None = None) -> Answer:
        """These items in the order of the user's taste, each once; unknown ones are left out."""
        raise NotImplementedError

    def explain(self, user_id: str, item_id: str) -> dict[str, Any]:
        """What carries the score of an item. Raises UnknownItem."""
        raise NotImplementedError

    def similar(self, item_id: str, n: int = 10) -> Answer:
        """The items most like an item; ``user_id`` of the answer is empty. Raises UnknownItem."""
        raise NotImplementedError

    def item_map(self, n: int = 2_000) -> dict[str, Any]:
        """``items``: item_id, x, y, cluster, title, popularity of the n most popular; ``clusters``: a name for each."""
        raise NotImplementedError

    def model(self) -> dict[str, Any]:
        """Version, names of the models, sizes, when it was loaded, what it was fitted on, what ``rollback`` would load."""
        raise NotImplementedError

    def health(self) -> dict[str, Any]:
        """``ready``, ``log`` (durability, loss window, position), ``snapshot`` (position, age), ``model``, ``state``."""
        raise NotImplementedError

    # --- writing ---

    def check(self, raw: Sequence[Mapping[str, Any]], key: bytes | None = None) -> list[Any]:
        """Events as the log takes them. ``key`` makes the request idempotent. Raises EventError with the index."""
        raise NotImplementedError

    def feedback(self, events: Sequence[Any]) -> Any:
        """Append events; returns ``Appended`` when they are durable and the next answer knows them."""
        raise NotImplementedError

    def announce(self, items: Sequence[Any]) -> Any:
        """Append new items, ``ItemAnnounced`` or anything with its fields; returns ``Appended``."""
        raise NotImplementedError

    def forget(self, user_id: str) -> int:
        """Remove a user from log, state, snapshots and answers, for good; returns how many events went."""
        raise NotImplementedError

    # --- models and snapshots ---

    def reload(self, folder: str | Folder | None = None) -> str:
        """Load a bundle (None: the same folder again), verify, replay, warm up, switch; the new version.

        Raises DataError for a damaged one; what is served stays then.
        """
        raise NotImplementedError

    def rollback(self) -> str:
        """Serve the model before the last ``reload`` again, with all events until now. Raises UserError without one."""
        raise NotImplementedError

    def snapshot(self) -> int:
        """Write a snapshot, and let the log drop what it covers; its position. Writing events goes on meanwhile."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop what runs in the background; the log stays open, and its owner's."""
        raise NotImplementedError
