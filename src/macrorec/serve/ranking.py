"""Which items does one model find for one user, and in which order? Candidates by the best path, then the ranker.

``Version`` is a deployment with its state: an answer is made from one of them alone, so none mixes two models.

Shape letters: B candidates, Q groups of items, D embedding.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from macrorec.answers import folds
from macrorec.api import Ranker
from macrorec.serve.answer import Path
from macrorec.serve.deployment import Deployment
from macrorec.serve.retrieve import Drop, Floats, nearest
from macrorec.serve.state import State, UserView

Ints = npt.NDArray[np.int64]
T = TypeVar("T")

REMEMBERED = 20_000
"""Vectors of folded-in users that are kept until their next event."""
TOP_GROUPS = 8
"""Groups of a user that the macro fallback draws from."""
FRESH_GROUPS, FRESH_ITEMS = 3, 8
"""New items join the candidates of whoever likes their group: of so many groups so many each."""
STALE = 600.0
"""Seconds after which names of groups are chosen anew."""
PACE = 0.1
"""Weight of the newest time in the moving average that deadlines are held against."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Candidates, best first."""

    numbers: Ints
    scores: Floats
    path: Path
    fresh: int = 0
    """So many of them, the last, are there because they are new."""
    ranked: int = 0
    """So many of them, the first, are in the ranker's order."""

    def by_score(self) -> Found:
        """All of them in the order of their scores."""
        order = np.lexsort((self.numbers, -self.scores))
        return Found(self.numbers[order], self.scores[order], self.path)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What may be in an answer."""

    only: Ints | None = None
    """Nothing but these items: distinct numbers."""
    exclude: Ints | None = None
    """Sorted numbers."""
    categories_C: npt.NDArray[np.bool_] | None = None
    """See ``Catalogue.of_categories``."""
    seen: bool = False
    """Whether what the user has may be in it."""


class Version:
    """One model, live. Many threads read it; its state is changed by one."""

    def __init__(self, deployment: Deployment, state: State) -> None:
        self.deployment, self.state = deployment, state
        self.loaded = time.time()
        self.name = deployment.version
        bundle = deployment.ranker_bundle
        self.ranker: Ranker | None = bundle.model if bundle and isinstance(bundle.model, Ranker) else None
        self._fused = None if self.ranker is None else self.ranker.fused()
        self._folds = folds(deployment.retriever_bundle.model) and deployment.retriever_bundle.model is not self.ranker
        self._vectors: OrderedDict[int, tuple[int, Floats]] = OrderedDict()
        self._vectors_lock = threading.Lock()
        self._made: dict[str, tuple[float, object]] = {}
        self._made_lock = threading.Lock()
        self.pace = {"retrieve": 0.0, "rank": 0.0}
        """Moving average of each stage's seconds."""

    # --- candidates ---

    def drop(self, view: UserView | None, wanted: Wanted) -> Drop:
        """What may not be in an answer."""
        masked = view.masked if view is not None and not wanted.seen else np.empty(0, np.int64)
        catalogue = self.state.catalogue

        def dropped(numbers: Ints) -> npt.NDArray[np.bool_]:
            gone = inside(masked, numbers)
            if wanted.exclude is not None:
                gone |= inside(wanted.exclude, numbers)
            if wanted.categories_C is not None:
                gone |= ~wanted.categories_C[catalogue.category_I[numbers]]
            return gone

        return dropped

    def candidates(self, view: UserView | None, n: int, wanted: Wanted, *, search: bool = True) -> Found:
        """The n best items that are wanted, by the best path; without ``search`` nothing but counts is asked."""
        drop = self.drop(view, wanted)
        if view is not None:
            found = self._retrieved(view, n, drop, wanted) if search else None
            if found is not None:
                return self._with_fresh(found, view, drop, wanted)
            if view.groups_Q is not None and view.groups_Q.any():
                found = self._of_groups(view, n, drop, wanted)
                if len(found.numbers):
                    return self._with_fresh(found, view, drop, wanted)
        return self._popular(view, n, drop, wanted)

    def path(self, view: UserView | None) -> Path:
        """What would make the candidates of a user."""
        if view is not None:
            if len(self._history(view)) and (self.deployment.retriever or self.deployment.scores):
                if self._folds and (view.fitted < 0 or view.changed):
                    return "fold_in"
                if view.fitted >= 0:
                    return "model"
            if view.groups_Q is not None and view.groups_Q.any():
                return self._fallback(view)
        return "popular"

    def vector(self, view: UserView) -> Floats | None:
        """The vector of a user who is known to a model with vectors; None for anybody else."""
        if self.deployment.retriever is None:
            return None
        path = self.path(view)
        if path == "model":
            return self.deployment.vector(view.fitted)
        if path != "fold_in":
            return None
        with self._vectors_lock:
            kept = self._vectors.get(view.number)
            if kept is not None and kept[0] == view.events:
                self._vectors.move_to_end(view.number)
                return kept[1]
        vector_D = self.deployment.fold_in(np.unique(self._history(view)))
        with self._vectors_lock:
            self._vectors[view.number] = view.events, vector_D
            if len(self._vectors) > REMEMBERED:
                self._vectors.popitem(last=False)
        return vector_D

    def forget(self, *user_ids: str) -> None:
        """Users have done nothing, and nothing is kept of them."""
        self.state.forget(*user_ids)
        with self._vectors_lock:
            self._vectors.clear()

    def _history(self, view: UserView) -> Ints:
        """The user's items that the model knows."""
        return view.items[view.items < self.state.catalogue.n_fitted]

    def _retrieved(self, view: UserView, n: int, drop: Drop, wanted: Wanted) -> Found | None:
        """What the model finds; None where it cannot."""
        expected = 0 if wanted.seen else min(len(view.masked), n)
        if self.deployment.retriever is not None:
            vector_D = self.vector(view)
            if vector_D is None:
                return None
            placed_I = self.state.catalogue.placed_I

            def gone(numbers: Ints) -> npt.NDArray[np.bool_]:
                return drop(numbers) | ~placed_I[numbers]

            found = nearest(self.deployment.retriever, vector_D, n, gone, only=wanted.only, expected=expected)
            return self._with_asked(Found(*found, self.path(view)), n, drop, wanted)
        only = wanted.only
        if only is not None:
            only = only[only < self.state.catalogue.n_fitted]
        own = self.deployment.retrieve(view.fitted, view.items, n, drop, changed=view.changed, only=only)
        return None if own is None else self._with_asked(Found(own.numbers, own.scores, own.path), n, drop, wanted)

    def _with_asked(self, found: Found, n: int, drop: Drop, wanted: Wanted) -> Found:
        """Items that were asked for and no search can find, behind those found."""
        if wanted.only is None or len(found.numbers) >= n:
            return found
        left = np.setdiff1d(wanted.only[~drop(wanted.only)], found.numbers)[: n - len(found.numbers)]
        least = np.full(len(left), found.scores[-1] if len(found.scores) else 0, np.float32)
        return replace(
            found, numbers=np.concatenate([found.numbers, left]), scores=np.concatenate([found.scores, least])
        )

    def _fallback(self, view: UserView) -> Path:
        """The path of what the macro graph finds: of a ranker that is all there is, it is the model's own."""
        alone = self.ranker is self.deployment.retriever_bundle.model
        return "model" if alone and view.fitted >= 0 else "macro_fallback"

    def _of_groups(self, view: UserView, n: int, drop: Drop, wanted: Wanted) -> Found:
        """The most popular items of the user's groups, by share of the group x users over the most in the group."""
        assert view.groups_Q is not None
        if wanted.only is not None:
            return self._popular(view, n, drop, wanted, self._fallback(view))
        order = np.argsort(-view.groups_Q, kind="stable")[:TOP_GROUPS]
        pools, scores = [np.empty(0, np.int64)], [np.empty(0)]
        for group in order[view.groups_Q[order] > 0].tolist():
            items, count = self.state.popular(n, group)
            keep = ~drop(items)
            share = view.groups_Q[group] / view.groups_Q.sum()
            pools.append(items[keep])
            scores.append(share * (count[keep] + 1) / (count.max(initial=0) + 1))
        pool, score = np.concatenate(pools), np.concatenate(scores).astype(np.float32)
        best = np.lexsort((pool, -score))[:n]
        pool, score = pool[best], score[best]
        if len(pool) and len(pool) < n:  # behind them what is popular elsewhere
            others = self._popular(view, n + len(pool), drop, wanted)
            other = ~np.isin(others.numbers, pool)
            behind = score[-1] * others.scores[other] / (others.scores.max(initial=0) + 1)
            pool, score = np.concatenate([pool, others.numbers[other]])[:n], np.concatenate([score, behind])[:n]
        return Found(pool, score, self._fallback(view))

    def _popular(self, view: UserView | None, n: int, drop: Drop, wanted: Wanted, path: Path = "popular") -> Found:
        """The items of most users."""
        if wanted.only is not None:
            items = wanted.only[~drop(wanted.only)]
            count = self.state.count(items)
            best = np.lexsort((items, -count))[:n]
            return Found(items[best], count[best].astype(np.float32), path)
        known = 0 if view is None else len(view.masked)
        for depth in (n + known, len(self.state.catalogue)):
            items, count = self.state.popular(depth)
            keep = ~drop(items)
            if int(keep.sum()) >= n:
                break
        return Found(items[keep][:n], count[keep][:n].astype(np.float32), path)

    def _with_fresh(self, found: Found, view: UserView, drop: Drop, wanted: Wanted) -> Found:
        """The newest items of the user's groups beside the candidates, for the ranker to judge."""
        fresh = self.state.catalogue.fresh
        if not fresh or self.ranker is None or view.groups_Q is None or wanted.only is not None:
            return found
        order = np.argsort(-view.groups_Q, kind="stable")[:FRESH_GROUPS]
        new = [item for group in order.tolist() if view.groups_Q[group] > 0 for item in _newest(fresh.get(group))]
        numbers = np.unique(np.array(new, dtype=np.int64))
        numbers = numbers[~drop(numbers)]
        place = {number: at for at, number in enumerate(found.numbers.tolist())}
        least = found.scores[-1] if len(found.scores) else np.float32(0)
        scores = [found.scores[place[number]] if number in place else least for number in numbers.tolist()]
        others = ~np.isin(found.numbers, numbers)
        return replace(
            found,
            numbers=np.concatenate([found.numbers[others], numbers]),
            scores=np.concatenate([found.scores[others], np.array(scores, np.float32)]),
            fresh=len(numbers),
        )

    # --- order ---

    def logits(self, view: UserView | None, numbers: Ints) -> Floats:
        """The ranker's logits of some items, as things stand now."""
        assert self.ranker is not None
        user = -1 if view is None else view.ranker
        if self._fused is not None:
            return self._fused(self.state.candidates(user, numbers))
        features = self.state.features(user, numbers)
        with torch.inference_mode():
            logits: Floats = self.ranker.logits(features).float().numpy()
        return logits

    def ranked(self, view: UserView | None, found: Found, n: int) -> Found:
        """The n first candidates, and those that are new, in the ranker's order; the others behind them as they are."""
        last = len(found.numbers) - found.fresh
        head = np.concatenate([np.arange(min(n, last)), np.arange(last, len(found.numbers))])
        logits = self.logits(view, found.numbers[head])
        order = np.lexsort((found.numbers[head], -logits))
        tail = slice(min(n, last), last)
        numbers = np.concatenate([found.numbers[head][order], found.numbers[tail]])
        scores = np.concatenate([logits[order], found.scores[tail]])
        return Found(numbers, scores, found.path, ranked=len(head))

    def since(self, view: UserView | None, found: Found, wanted: Wanted) -> Found:
        """``found`` without what the user has taken while it was made."""
        masked = None if view is None or wanted.seen else self.state.masked_since(view)
        if masked is None:
            return found
        keep = ~inside(masked, found.numbers)
        return replace(
            found,
            numbers=found.numbers[keep],
            scores=found.scores[keep],
            ranked=int(keep[: found.ranked].sum()),
        )

    # --- what is slow to make ---

    def kept(self, name: str, make: Callable[[], T], *, forever: bool = False) -> T:
        """What ``make`` makes, made anew after ``STALE`` seconds unless it holds ``forever``."""
        with self._made_lock:
            made, value = self._made.get(name, (-STALE, None))
            if value is None or not (forever or time.monotonic() - made < STALE):
                value = make()
                self._made[name] = time.monotonic(), value
            return cast("T", value)

    # --- time ---

    def took(self, stage: str, seconds: float) -> None:
        """A stage has taken so long."""
        now = self.pace[stage]
        self.pace[stage] = seconds if not now else now + PACE * (seconds - now)

    def fits(self, stage: str, deadline: float | None) -> bool:
        """Whether a stage is likely to end before the deadline. Each no makes the next yes likelier."""
        if deadline is None or time.monotonic() + self.pace[stage] <= deadline:
            return True
        self.pace[stage] *= 1 - PACE
        return False

    def warm_up(self) -> None:
        """Answer once by every path, so that nothing is compiled under the first request."""
        self.deployment.warm_up()
        ids: list[Any] = [None, *(self.state.users.id_of(n) for n in range(min(3, len(self.state.users))))]
        for user_id in ids:
            view = None if user_id is None else self.state.user(user_id)
            for search in (True, False):
                found = self.candidates(view, 200, Wanted(), search=search)
                if self.ranker is not None and len(found.numbers):
                    self.ranked(view, found, 200)


def inside(sorted_M: Ints, numbers: Ints) -> npt.NDArray[np.bool_]:
    """Which of ``numbers`` stand in ``sorted_M``."""
    if not len(sorted_M):
        return np.zeros(len(numbers), np.bool_)
    place = np.minimum(sorted_M.searchsorted(numbers), len(sorted_M) - 1)
    found: npt.NDArray[np.bool_] = sorted_M[place] == numbers
    return found


def _newest(items: Any) -> list[int]:
    return [] if items is None else list(items)[:FRESH_ITEMS]
