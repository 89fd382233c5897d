"""What does one version of the service answer from? A bundle, its ranker if it has one, and a search over its items.

Shape letters: U users, I items of the retrieving bundle, D embedding, H items of a user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec import files, weights
from macrorec.answers import folds
from macrorec.api import Ranker, TwoTower
from macrorec.bundle import MANIFEST, Bundle, ranker_of
from macrorec.errors import DataError
from macrorec.eval.ranking import evaluating
from macrorec.graph.bipartite import Edges, edges_of
from macrorec.serve.canary import Canary, CanaryConfig, IndexHealth
from macrorec.serve.index import cached
from macrorec.serve.retrieve import Drop, Exact, Floats, Numbers, Retriever, ScoreRetriever, nearest

SMALL = 50_000
"""Items from which an index is worth its while: fewer are searched exactly in about a millisecond."""
How = Literal["model", "fold_in"]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What was retrieved for one user, best first."""

    numbers: Numbers
    """Of the retrieving bundle's items, or beyond them of items appended."""
    scores: Floats
    path: How


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """One version: loaded, verified, and never changed, but for items appended to its search."""

    folder: Path
    """Of the bundle."""
    version: str
    """The first 12 digits of the SHA-256 of the bundle's manifest, which covers every file."""
    retriever_bundle: Bundle
    ranker_bundle: Bundle | None
    """The bundle in the subfolder ``ranker``; or the bundle itself, where its model is a ranker."""
    users_UD: Floats | None
    """The user vectors of the fit; None for a model without vectors."""
    retriever: Retriever | None
    """The search over item vectors, exact or under a canary; None for a model without."""
    folding: Callable[[Edges], Tensor] | None
    """Makes user vectors of histories; None for a model without."""
    scores: ScoreRetriever | None
    """Whole rows of scores, for a model without vectors that is no ranker."""
    ranker_items_I: Numbers
    """The ranker's number of each retrieved item, -1 where it knows none; without a ranker all are -1."""
    ranker_users_U: Numbers
    """The ranker's number of each user of the retrieving bundle, likewise."""

    @staticmethod
    def load(
        folder: str | Path,
        *,
        index: Literal["auto", "exact"] = "auto",
        cache: Path | None = None,
        threads: int = 1,
        canary: CanaryConfig | None = None,
    ) -> Deployment:
        """The bundle in ``folder``, verified. Raises DataError for what is missing, damaged, or no ranker.

        With ``auto``, ``SMALL`` items and more are searched by an approximate index. It is made in the background, on
        so many ``threads``, and kept in ``cache``, by default the folder beside the bundle's with .index at its end.
        """
        place = Path(folder)
        bundle = Bundle.load(place)
        version = files.sha256(place / MANIFEST)[:12]
        inner = ranker_of(place)
        if inner is not None:
            ranker: Bundle | None = Bundle.load(inner)
        else:
            ranker = bundle if isinstance(bundle.model, Ranker) else None
        if ranker is not None and not isinstance(ranker.model, Ranker):
            raise DataError(f"{inner} cannot rank: its model is no ranker")
        users_UD, retriever, folding = None, None, None
        if isinstance(bundle.model, TwoTower):
            vectors = weights.read(place / "vectors.safetensors")
            users_UD = _fitting(vectors["users_UD"], len(bundle.users), place)
            items_ID = _fitting(vectors["items_ID"], len(bundle.items), place)
            with evaluating(bundle.model):
                folding = bundle.model.folding()
            retriever = _search(items_ID, users_UD, place, index, cache, threads, canary)
        rows = not isinstance(bundle.model, TwoTower | Ranker)
        scores = ScoreRetriever(bundle.model) if rows else None
        items_I = np.full(len(bundle.items), -1) if ranker is None else ranker.items.numbers(bundle.items.ids)
        users_U = np.full(len(bundle.users), -1) if ranker is None else ranker.users.numbers(bundle.users.ids)
        found = users_UD, retriever, folding, scores
        return Deployment(place, version, bundle, ranker, *found, items_I, users_U)

    @property
    def items_ID(self) -> Floats | None:
        """The item vectors of the fit; None for a model without."""
        search = self.retriever.oracle if isinstance(self.retriever, Canary) else self.retriever
        return search.items_ID if isinstance(search, Exact) else None

    def index_health(self) -> IndexHealth | None:
        """How the approximate index does; None where search is exact anyway."""
        return self.retriever.health() if isinstance(self.retriever, Canary) else None

    def close(self) -> None:
        """End what runs in the background; requests under way still get their answers."""
        if isinstance(self.retriever, Canary):
            self.retriever.close()

    def retrieve(
        self,
        user: int,
        history: Numbers,
        n: int,
        drop: Drop | None = None,
        *,
        changed: bool = False,
        only: Numbers | None = None,
    ) -> Candidates | None:
        """The n best items that filters leave, as ``nearest`` finds them; None where there is nothing to go by: no
        history, somebody new to a model that cannot fold in, or a bundle of a ranker alone, which retrieves nothing.

        ``user``: the number in the fit, -1 for one who came later; ``history``: the user's items (numbers, shape (H,))
        by the target behaviour, now; ``changed``: whether that differs from the fit's, so that the model folds in.
        """
        if self.retriever is None and self.scores is None:
            return None
        history = np.unique(history[(history >= 0) & (history < len(self.retriever_bundle.items))])
        model = self.retriever_bundle.model
        if len(history) and (user < 0 or changed) and folds(model):
            path: How = "fold_in"
        elif len(history) and user >= 0:
            path = "model"
        else:
            return None
        if self.scores is not None:
            if path == "model":
                row = self.scores.of_user(user)
            else:
                row = self.scores.of_history(
                    edges_of(np.zeros_like(history), history, 1, len(self.retriever_bundle.items))
                )
            return Candidates(*nearest(row, None, n, drop, only=only, expected=len(history)), path)
        assert self.retriever is not None
        vector_D = self.vector(user) if path == "model" else self.fold_in(history)
        return Candidates(*nearest(self.retriever, vector_D, n, drop, only=only, expected=min(len(history), n)), path)

    def vector(self, user: int) -> Floats:
        """The vector (D,) of a user of the fit."""
        assert self.users_UD is not None, "only a model with vectors has one"
        vector_D: Floats = self.users_UD[user]
        return vector_D

    def fold_in(self, history: Numbers) -> Floats:
        """The vector (D,) of somebody with these items (distinct numbers of the fit)."""
        assert self.folding is not None, "only a model with vectors folds in to one"
        edges = edges_of(np.zeros_like(history), history, 1, len(self.retriever_bundle.items))
        with evaluating(self.retriever_bundle.model):
            vector_D: Floats = self.folding(edges)[0].float().numpy().copy()  # it is kept, the tensor not
        return vector_D

    def warm_up(self) -> None:
        """Answer once by every path, so that nothing is compiled or paged in under the first request."""
        bundle = self.retriever_bundle
        if not len(bundle.items) or not len(bundle.users):
            return
        one = np.zeros(1, dtype=np.int64)
        self.retrieve(-1, one, 10)
        busiest = int(bundle.graph.target.start_U.diff().argmax())
        self.retrieve(busiest, one, 10, lambda numbers: numbers % 2 == 0)
        self.retrieve(busiest, one, 10, only=one)
        if self.ranker_bundle is not None:
            with evaluating(self.ranker_bundle.model):
                self.ranker_bundle.model.score(torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long))


def _search(
    items_ID: Floats,
    users_UD: Floats,
    place: Path,
    index: str,
    cache: Path | None,
    threads: int,
    canary: CanaryConfig | None,
) -> Retriever:
    """The search over item vectors."""
    exact = Exact(items_ID)
    if index == "exact" or exact.n_items < SMALL:
        return exact
    kept = cache or place.with_name(f"{place.name}.index")
    key = files.sha256(place / "vectors.safetensors")
    return Canary(exact, partial(cached, exact, users_UD, kept, key, threads=threads), canary)


def _fitting(vectors: torch.Tensor, n: int, place: Path) -> npt.NDArray[np.float32]:
    """Vectors as an array, if there are n of them."""
    if vectors.ndim != 2 or len(vectors) != n:
        raise DataError(f"{place} holds vectors of shape {tuple(vectors.shape)} for {n} nodes")
    array: npt.NDArray[np.float32] = vectors.float().contiguous().numpy()
    return array
