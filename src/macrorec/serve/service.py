"""How does a request become an answer? State, retrieve, rank; and how do events, models, and users come and go?

Plain Python: no HTTP. Every method may be called from many threads at once.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path as Folder
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from macrorec import models
from macrorec.data.log import Behavior
from macrorec.errors import UserError
from macrorec.serve import reasons as why
from macrorec.serve.answer import Answer as Answer
from macrorec.serve.answer import NotReady as NotReady
from macrorec.serve.answer import Path as Path
from macrorec.serve.answer import Ranked as Ranked
from macrorec.serve.answer import Stage as Stage
from macrorec.serve.answer import UnknownItem as UnknownItem
from macrorec.serve.canary import Canary
from macrorec.serve.deployment import Deployment
from macrorec.serve.events import Event, Schema
from macrorec.serve.log import Appended, Log
from macrorec.serve.memory import Memory
from macrorec.serve.ranking import Found, Version, Wanted
from macrorec.serve.rehearsal import rehearse
from macrorec.serve.state import State, UserView

REASONS = 3
"""Reasons that are given with each item of an answer."""
_INDEX_SECONDS = 1_800.0
"""How long a new version waits for its index before it answers without."""
_STEP = 1_000
"""Rows behind which a new version may be when it takes over: counting them holds events up for milliseconds."""


class Service:
    """A model, what has happened since its fit, and a durable log of it."""

    def __init__(
        self,
        bundle: str | Folder,
        log: Log,
        data: str | Folder | None = None,
        *,
        candidates: int = 200,
        index: Literal["auto", "exact"] = "auto",
    ) -> None:
        """Load the bundle, the newest snapshot in ``data``, and what the log has beyond it.

        ``candidates``: how many items are retrieved for the ranker; ``index``: see ``Deployment.load``. Raises
        DataError for a bundle or snapshots that are damaged.
        """
        self._candidates, self._index = candidates, index
        self._now: Version | None = None
        self._former: Version | None = None
        self._changing = threading.Lock()
        with every_core(), ThreadPoolExecutor(1) as beside:
            loading = beside.submit(self._loaded, bundle)
            self._memory = Memory(log, data, self._follow, self._forgotten)
            try:
                self._take_over(loading.result())
            except BaseException:
                self._memory.close()
                raise

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

        ``categories``: of these alone; ``only``, ``exclude``: ids, unknown ones are passed over; ``seen``: whether the
        user may be shown what it has already; ``deadline``: seconds of ``time.monotonic`` at which stages are left
        out rather than awaited.
        """
        assert n >= 1 and offset >= 0
        version, start = self.version, time.perf_counter()
        state, degraded = version.state, list[Stage]()
        position, view = state.position, state.user(user_id)
        wanted = Wanted(
            only=None if only is None else _known(state.numbers(only)),
            exclude=None if exclude is None else _known(state.numbers(exclude)),
            categories_C=None if categories is None else state.catalogue.of_categories(categories),
            seen=seen,
        )
        times = {"state": time.perf_counter() - start}
        search = version.fits("retrieve", deadline)
        if not search:
            degraded.append("retrieve")
        start = time.perf_counter()
        found = version.candidates(view, max(self._candidates, offset + n), wanted, search=search)
        times["retrieve"] = time.perf_counter() - start
        if search:
            version.took("retrieve", times["retrieve"])
        if version.ranker is not None and found.path != "popular" and len(found.numbers):
            if version.fits("rank", deadline):
                start = time.perf_counter()
                found = version.ranked(view, found, self._candidates)
                times["rank"] = time.perf_counter() - start
                version.took("rank", times["rank"])
            else:
                found = found.by_score()
                degraded.append("rank")
        found = version.since(view, found, wanted)
        page = slice(offset, offset + n)
        told: list[list[dict[str, Any]] | None] = []
        if reasons:
            start = time.perf_counter()
            for number in found.numbers[page].tolist():
                late = deadline is not None and time.monotonic() > deadline
                if late and "reasons" not in degraded:
                    degraded.append("reasons")
                told.append(None if late else why.explain(version, view, number, REASONS)["reasons"])
            times["reasons"] = time.perf_counter() - start
        items = self._items(version, found, page, told)
        ranked = found.ranked
        return Answer(user_id, items, found.path, version.name, position, ranked, tuple(degraded), times)

    def rank(self, user_id: str, item_ids: Sequence[str], *, deadline: float | None = None) -> Answer:
        """These items in the order of the user's taste, each once; unknown ones are left out."""
        version, start = self.version, time.perf_counter()
        state, degraded = version.state, list[Stage]()
        position, view = state.position, state.user(user_id)
        numbers = _known(state.numbers(item_ids)) if len(item_ids) else np.empty(0, np.int64)
        times = {"state": time.perf_counter() - start}
        path = version.path(view)
        ranks = version.ranker is not None and path != "popular" and len(numbers) > 0
        start = time.perf_counter()
        if ranks and version.fits("rank", deadline):
            found = version.ranked(view, Found(numbers, np.zeros(len(numbers), np.float32), path), len(numbers))
            times["rank"] = time.perf_counter() - start
        else:
            if ranks:
                degraded.append("rank")
            wanted = Wanted(only=numbers, seen=True)
            found = version.candidates(view, max(len(numbers), 1), wanted)
            left = np.setdiff1d(numbers, found.numbers)
            lowest = np.full(len(left), found.scores[-1] if len(found.scores) else 0, np.float32)
            scores = np.concatenate([found.scores, lowest])
            found = dataclasses.replace(found, numbers=np.concatenate([found.numbers, left]), scores=scores)
            times["retrieve"] = time.perf_counter() - start
        items, name = self._items(version, found, slice(None), []), version.name
        return Answer(user_id, items, found.path, name, position, found.ranked, tuple(degraded), times)

    def explain(self, user_id: str, item_id: str) -> dict[str, Any]:
        """What carries the score of an item: see ``reasons.explain``. Raises UnknownItem."""
        version = self.version
        item = self._item(version, item_id)
        return {"user_id": user_id} | why.explain(version, version.state.user(user_id), item)

    def similar(self, item_id: str, n: int = 10) -> Answer:
        """The items most like an item; ``user_id`` of the answer is empty. Raises UnknownItem."""
        version, start = self.version, time.perf_counter()
        numbers, scores = why.similar(version, self._item(version, item_id), n)
        items = self._items(version, Found(numbers, scores, "model"), slice(None), [])
        times = {"retrieve": time.perf_counter() - start}
        return Answer("", items, "model", version.name, version.state.position, timings=times)

    def item_map(self, n: int = 2_000) -> dict[str, Any]:
        """``items``: item_id, x, y, cluster, title, popularity of the n most popular; ``clusters``: a name for each."""
        return why.item_map(self.version, n)

    def model(self) -> dict[str, Any]:
        """Version, names of the models, sizes, when it was loaded, what it was fitted on, what ``rollback`` serves."""
        version, former = self.version, self._former
        deployment = version.deployment
        bundle = deployment.retriever_bundle
        retriever = deployment.retriever
        return {
            "version": version.name,
            "retriever": models.name_of(type(bundle.model)),
            "ranker": None if version.ranker is None else models.name_of(type(version.ranker)),
            "search": "scores" if deployment.scores else None if retriever is None else retriever.kind,
            "users": len(bundle.users),
            "items": len(bundle.items),
            "behaviors": [dataclasses.asdict(behavior) for behavior in bundle.graph.behaviors],
            "categories": list(version.state.catalogue.categories[:1_000]),
            "run": bundle.config.get("run"),
            "loaded": version.loaded,
            "rollback": None if former is None else former.name,
        }

    def health(self) -> dict[str, Any]:
        """``ready``, ``log`` (durability, loss window), ``snapshot`` (position, age), ``model``, ``state``, ``index``
        where there is one."""
        version = self._now
        told: dict[str, Any] = {
            "ready": version is not None,
            "log": dataclasses.asdict(self._memory.log.health()),
            "snapshot": self._memory.told(),
        }
        if version is not None:
            index = version.deployment.index_health()
            told["model"] = {"version": version.name, "age_seconds": time.time() - version.loaded}
            told["state"] = version.state.told() | {"ledger_bytes": self._memory.ledger.nbytes}
            if index is not None:
                told["index"] = dataclasses.asdict(index)
        return told

    @property
    def version(self) -> Version:
        """What answers now. Raises NotReady."""
        version = self._now
        if version is None:
            raise NotReady("the service has not finished starting, or is closed")
        return version

    # --- writing ---

    def check(self, raw: Sequence[Mapping[str, Any]], key: bytes | None = None) -> list[Event]:
        """Events as the log takes them. ``key`` makes the request idempotent. Raises EventError with the index."""
        return self.schema().check_all(raw, key)

    def schema(self) -> Schema:
        """Which events are taken: of the behaviours and the kinds of ids that the model knows."""
        deployment = self.version.deployment
        bundles = [bundle for bundle in (deployment.ranker_bundle, deployment.retriever_bundle) if bundle is not None]
        named = {behavior.name: behavior for bundle in bundles for behavior in bundle.graph.behaviors}
        *_, target = deployment.retriever_bundle.graph.behaviors
        behaviors: tuple[Behavior, ...] = (*(one for one in named.values() if one.name != target.name), target)
        own = deployment.retriever_bundle
        return Schema(behaviors=behaviors, users_are_text=own.users.is_text, items_are_text=own.items.is_text)

    def feedback(self, events: Sequence[Event]) -> Appended:
        """Append events; returns when they are durable and the next answer knows them."""
        return self._memory.log.append(events)

    def announce(self, items: Sequence[Any]) -> Appended:
        """Append new items, ``ItemAnnounced`` or anything with its fields. Raises EventError with the index."""
        schema = self.schema()
        return self._memory.log.append([schema.check_item(item, index) for index, item in enumerate(items)])

    def forget(self, user_id: str) -> int:
        """Remove a user from log, state, snapshots and answers, for good; returns how many events went."""
        return self._memory.forget(user_id)

    # --- models and snapshots ---

    def reload(self, folder: str | Folder | None = None) -> str:
        """Load a bundle (None: the same folder again), verify, replay, warm up, switch; the new version.

        Raises DataError for a damaged one; what is served stays then.
        """
        with self._changing:
            place = self.version.deployment.folder if folder is None else folder
            return self._take_over(self._loaded(place), patient=True)

    def rollback(self) -> str:
        """Serve the model before the last ``reload`` again, with all events until now. Raises UserError without one."""
        with self._changing:
            if self._former is None:
                raise UserError("there is no model to go back to: none has been loaded since the start")
            version, memory = self._former, self._memory
            while version.state.row < len(memory.ledger):
                with memory.lock:  # for moments, between which events come and users go
                    version.state.extend(memory.ledger, min(version.state.row + _STEP, len(memory.ledger)))
            with memory.lock:
                return self._switch(version)

    def snapshot(self) -> int:
        """Write a snapshot, and let the log drop what it covers; its position. Writing events goes on meanwhile."""
        return self._memory.snapshot()

    def close(self) -> None:
        """Stop what runs in the background; the log stays open, and its owner's."""
        if self._now is None:
            return
        self._memory.close()
        for version in (self._now, self._former):
            if version is not None:
                version.deployment.close()
        self._now = self._former = None

    def _loaded(self, folder: str | Folder) -> State:
        """The state of the bundle in ``folder`` as of its fit."""
        deployment = Deployment.load(folder, index=self._index)
        try:
            rehearse(deployment)
            return State(deployment)
        except BaseException:
            deployment.close()
            raise

    def _take_over(self, state: State, *, patient: bool = False) -> str:
        """Let a new version answer, after all that has happened; ``patient``: and with its index."""
        memory, deployment = self._memory, state.deployment
        try:
            if patient and isinstance(deployment.retriever, Canary):  # what is served has its index
                deployment.retriever.wait(_INDEX_SECONDS)
            with memory.lock:
                removals, forgotten = memory.removals, set(memory.ledger.forgotten)
            state.leave(forgotten, memory.log.secret)
            while (last := len(memory.ledger)) - state.row > _STEP:
                state.extend(memory.ledger, last, serving=False)
            version = Version(deployment, state)
            version.warm_up()
            with memory.lock:
                if memory.removals == removals:
                    return self._switch(version)
        except BaseException:
            deployment.close()
            raise
        deployment.close()  # somebody's rows were removed while they were counted: anew
        return self._take_over(self._loaded(deployment.folder), patient=patient)

    def _switch(self, version: Version) -> str:
        """``version`` answers from now on, with every event that is there; the memory's lock is held."""
        version.state.extend(self._memory.ledger)
        former, self._now = self._now, version
        if former is not version:
            dropped, self._former = self._former, former
            if dropped is not None and dropped is not version:
                dropped.deployment.close()
        return version.name

    def _follow(self) -> None:
        """The ledger has new rows; the memory's lock is held."""
        if self._now is not None:
            self._now.state.extend(self._memory.ledger)

    def _forgotten(self, user_id: str) -> None:
        """A user has left; the memory's lock is held."""
        for version in (self._now, self._former):
            if version is not None:
                version.forget(user_id)

    def _item(self, version: Version, item_id: str) -> int:
        number = int(version.state.numbers([item_id])[0])
        if number < 0:
            raise UnknownItem(f"there is no item {item_id!r}")
        return number

    def _items(
        self, version: Version, found: Found, page: slice, told: list[list[dict[str, Any]] | None]
    ) -> tuple[Ranked, ...]:
        """A page of what was found, with ids and titles."""
        catalogue, numbers = version.state.catalogue, found.numbers[page]
        first = (page.start or 0) + 1
        rows = zip(catalogue.ids.ids_of(numbers), numbers.tolist(), found.scores[page].tolist(), strict=True)
        return tuple(
            Ranked(item_id, score, first + place, told[place] if told else None, catalogue.title(number))
            for place, (item_id, number, score) in enumerate(rows)
        )


@contextmanager
def every_core() -> Iterator[None]:
    """Let counting use all cores for a while; requests, which run beside each other, use one each."""
    was = torch.get_num_threads()
    torch.set_num_threads(max(was, len(os.sched_getaffinity(0))))
    try:
        yield
    finally:
        torch.set_num_threads(was)


def view_of(service: Service, user_id: str) -> UserView | None:
    """What is known of a user now, for tests and benchmarks."""
    return service.version.state.user(user_id)


def _known(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sorted known numbers, each once."""
    return np.unique(numbers[numbers >= 0])
