"""Does the index still find what an exact search would? One query in so many is answered twice, and counted.

An index is built, or read, in the background while ``Exact`` answers. Then it answers, under watch: where its moving
recall falls below a floor, ``Exact`` answers again until it has recovered, and the health says so.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from macrorec.errors import UserError
from macrorec.eval.vectors import Ranking
from macrorec.serve.index import FaissIndex, recall
from macrorec.serve.retrieve import Exact, Floats, Numbers

State = Literal["building", "index", "fallen back", "failed", "closed"]
Build = Callable[[], tuple[FaissIndex, str]]
"""Makes the index, and says in a line how."""
NICE = 10
"""How far the background work stands back behind requests, where the system can tell threads apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CanaryConfig:
    """When an index is checked, and believed."""

    every: int = 200
    """Queries to one that is checked. A check costs an exact search, in the background; while one runs, no other is
    begun."""
    floor: float = 0.95
    """Moving recall below which exact search takes over."""
    recovered: float = 0.98
    """Moving recall at which the index answers again."""
    window: int = 100
    """Checks in the moving recall."""
    least: int = 20
    """Checks before the moving recall is believed."""
    k: int = 100
    """So many of the best are compared, of a search as deep as the query that is checked, or this deep if that is
    deeper: an index takes more candidates for a deeper search, and what requests get is what matters."""


@dataclass(frozen=True, slots=True)
class IndexHealth:
    """How the index does."""

    state: State
    kind: str
    """What answers now."""
    recall: float | None
    """Mean over the last ``window`` checks; None before the first."""
    checks: int
    """So far."""
    floor: float
    reason: str
    """How the index came to be, or why exact search answers, in a line."""


class Canary:
    """A ``Retriever`` that asks the index if that is ready and sound, else ``Exact``; one thread checks and builds."""

    def __init__(self, oracle: Exact, build: Build, config: CanaryConfig | None = None) -> None:
        """``build`` is called once, in the background thread, which starts now and ends with ``close``."""
        self.oracle, self.config = oracle, config or CanaryConfig()
        self._build = build
        self._index: FaissIndex | None = None
        self._state: State = "building"
        self._reason = "the index is being made"
        self._recalls: deque[float] = deque(maxlen=self.config.window)
        self._checks = 0
        self._numbers = itertools.count(1)
        self._asked: queue.Queue[tuple[Floats, int] | None] = queue.Queue(maxsize=1)
        self._settled = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="macrorec-canary", daemon=True)
        self._thread.start()

    @property
    def kind(self) -> str:
        return self._answering.kind

    @property
    def exact(self) -> bool:
        return self._answering.exact

    @property
    def n_items(self) -> int:
        return self.oracle.n_items

    @property
    def _answering(self) -> Exact | FaissIndex:
        index = self._index
        return index if index is not None and self._state == "index" else self.oracle

    def search(self, vectors_BD: Floats, k: int) -> Ranking:
        found = self._answering.search(vectors_BD, k)
        if self._index is not None and len(vectors_BD) and next(self._numbers) % self.config.every == 0:
            with suppress(queue.Full):  # a check is running
                self._asked.put_nowait((vectors_BD[:1].copy(), k))
        return found

    def score(self, vectors_BD: Floats, numbers_BC: Numbers) -> Floats:
        return self.oracle.score(vectors_BD, numbers_BC)

    def append(self, vectors_ND: Floats) -> None:
        self.oracle.append(vectors_ND)

    def health(self) -> IndexHealth:
        """How the index does now."""
        recalls = list(self._recalls)
        mean = sum(recalls) / len(recalls) if recalls else None
        return IndexHealth(self._state, self.kind, mean, self._checks, self.config.floor, self._reason)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the index is there, or has failed to be made; whether it came to that in time."""
        return self._settled.wait(timeout)

    def close(self, timeout: float | None = 10.0) -> None:
        """End the background thread; ``Exact`` answers whoever still asks. A build under way ends by itself."""
        self._closing.set()
        with suppress(queue.Full):
            self._asked.put_nowait(None)
        self._thread.join(timeout if self._settled.is_set() else 0)

    def _work(self) -> None:
        with suppress(AttributeError, OSError):  # Linux alone gives each thread its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            index, self._reason = self._build()
        except Exception as error:  # exact search goes on, whatever befell the index
            self._state, self._reason = "failed", _line(error)
            self._settled.set()
            return
        self._index, self._state = index, "index"
        self._settled.set()
        while not self._closing.is_set():
            asked = self._asked.get()
            if asked is None or self._closing.is_set():
                break
            try:
                self.check(*asked)
            except Exception as error:
                self._state, self._reason = "failed", _line(error)
                break
        if self._closing.is_set():
            self._state, self._reason = "closed", "another version answers"
        self._index = None

    def check(self, vectors_1D: Floats, depth: int = 0) -> None:
        """Answer a query of this depth twice, and draw the consequences."""
        index = self._index
        assert index is not None, "only an index is checked"
        k = self.config.k
        found_1K = index.search(vectors_1D, max(k, depth))[0][:, :k]
        one = recall(found_1K, self.oracle.search(vectors_1D, k)[0])
        self._checks += 1
        self._recalls.append(one)
        if len(self._recalls) < min(self.config.least, self.config.window):
            return
        mean = sum(self._recalls) / len(self._recalls)
        if self._state == "index" and mean < self.config.floor:
            self._state = "fallen back"
            self._reason = f"recall at {k} was {mean:.3f} over {len(self._recalls)} checks, below {self.config.floor}"
        elif self._state == "fallen back" and mean >= self.config.recovered:
            self._state, self._reason = "index", f"recall at {k} is {mean:.3f} again"


def _line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
