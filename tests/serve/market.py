"""A small shop with a retriever and a ranker, and a log in memory: what tests of the state and the service stand on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import polars as pl
import torch

from macrorec import models
from macrorec.bundle import Bundle
from macrorec.data.log import Behavior, Interactions
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, build
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.typed import TypedMacroGraph
from macrorec.serve.events import Entry, Event, Forgotten, hidden
from macrorec.serve.log import Appended, Batch, LogHealth

N_USERS, N_ITEMS = 12, 30
CATEGORIES = ("books", "music", "games")
BEHAVIORS = (
    Behavior(name="view", role="auxiliary", mask=False, weight=0.25),
    Behavior(name="hide", role="negative", mask=True),
    Behavior(name="buy", weight=2.0),
)
T0 = 1_600_000_000


def interactions(seed: int = 0, n_events: int = 150) -> Interactions:
    """Events of users u0 to u11 with items i0 to i29; user u11 has none, and item i29 neither."""
    random = np.random.default_rng(seed)
    user = random.integers(0, N_USERS - 1, n_events).astype(np.int32)
    item = (3 * random.integers(0, N_ITEMS // 3, n_events) + user % 3).astype(np.int32)
    item[item == N_ITEMS - 1] = 0
    behavior = random.choice(3, n_events, p=[0.4, 0.1, 0.5]).astype(np.int8)
    ids = [f"u{n}" for n in range(N_USERS)], [f"i{n}" for n in range(N_ITEMS)]
    time = T0 + 60 * np.arange(n_events, dtype=np.int64)
    return Interactions(Vocab(ids[0]), Vocab(ids[1]), BEHAVIORS, user, item, behavior, time)


def macro_of(log: Interactions, *, typed: bool = False) -> MacroGraph | TypedMacroGraph:
    """The macro graph of a log: users in two groups, items by category."""
    chosen = log.behavior != 1
    scale = np.array([behavior.weight for behavior in BEHAVIORS])[log.behavior[chosen]]
    groups = (
        Groups(np.arange(len(log.users), dtype=np.int32) % 2, 2),
        Groups(np.arange(len(log.items), dtype=np.int32) % 3, 3, CATEGORIES),
    )
    columns = log.user[chosen], log.item[chosen], scale, log.time[chosen]
    if typed:
        return TypedMacroGraph(*groups, *columns, None, types=("positive", "negative"), recents=5)
    return MacroGraph(*groups, *columns, recents=5)


def graph_of(log: Interactions, *, typed: bool = False) -> Graph:
    graph = build(log)
    return Graph(graph.n_users, graph.n_items, graph.behaviors, graph.edges, macro_of(log, typed=typed))


def fitted(name: str, graph: Graph, seed: int = 1) -> models.Model:
    kind = models.load(name)
    model = kind.from_graph(kind.Config(), graph, torch.Generator().manual_seed(seed))
    model.solve(graph, torch.Generator().manual_seed(seed))
    return model.eval()


def write(folder: Path, name: str = "bpr", *, ranker: bool = True, typed: bool = False, seed: int = 0) -> Path:
    """A bundle of the shop, with a ranker where there is to be one; ``name`` may itself be a ranker."""
    log = interactions(seed)
    kept = {"prepare": {"binary": None}}
    inner = None
    if ranker:
        whole = graph_of(log, typed=typed)
        inner = Bundle.save(folder / "inner", fitted("macgnn", whole), whole, log.users, log.items, kept)
    graph = graph_of(log, typed=typed) if name == "macgnn" else build(log)
    titles = pl.Series([f"Item {n}" if n % 2 else None for n in range(N_ITEMS)])
    return Bundle.save(
        folder / "shop", fitted(name, graph, seed + 1), graph, log.users, log.items, kept, titles=titles, ranker=inner
    )


class MemoryLog:
    """A log that keeps entries in a list, and hands them on in batches as they were given."""

    def __init__(self, secret: bytes = b"secret") -> None:
        self.secret = secret
        self.entries: list[tuple[int, Entry]] = []
        self.keys: set[bytes] = set()
        self.compacted = 0
        self._last = 0
        self._lock = threading.RLock()
        self._subscribers: list[Callable[[Batch], None]] = []

    def append(self, entries: Sequence[Entry]) -> Appended:
        with self._lock:
            new, duplicates = [], 0
            for entry in entries:
                key = getattr(entry, "key", None)
                if key is not None and key in self.keys:
                    duplicates += 1
                    continue
                if key is not None:
                    self.keys.add(key)
                self._last += 1
                new.append((self._last, entry))
            self.entries += new
            if new:
                batch = Batch([position for position, _ in new], [entry for _, entry in new])
                for apply in self._subscribers:
                    apply(batch)
            return Appended(self._last, len(new), duplicates)

    def submit(self, entries: Sequence[Entry]) -> Future[Appended]:
        future: Future[Appended] = Future()
        future.set_result(self.append(entries))
        return future

    def read(self, after: int, limit: int) -> Batch:
        with self._lock:
            found = [pair for pair in self.entries if pair[0] > after][:limit]
        return Batch([position for position, _ in found], [entry for _, entry in found])

    def last(self) -> int:
        return self._last

    def subscribe(self, apply: Callable[[Batch], None], *, after: int | None = None) -> Callable[[], None]:
        with self._lock:
            if after is not None and len(batch := self.read(after, 1 << 30)):
                apply(batch)
            self._subscribers.append(apply)
        return lambda: self._subscribers.remove(apply)

    def forget(self, user_id: str) -> int:
        with self._lock:
            gone = [pair for pair in self.entries if isinstance(pair[1], Event) and pair[1].user_id == user_id]
            self.entries = [pair for pair in self.entries if pair not in gone]
            self.append([Forgotten(hidden(user_id, self.secret))])
            return len(gone)

    def compact(self, before: int) -> None:
        self.compacted = before
        self.entries = [pair for pair in self.entries if pair[0] >= before]

    def health(self) -> LogHealth:
        return LogHealth("none", None, self._last, 0, 0, None)

    def close(self) -> None:
        pass


def bought(user: str, item: str, behavior: str = "buy", time: int = T0 + 100_000) -> Event:
    """An event after the fit."""
    return Event(user, item, behavior, time)
