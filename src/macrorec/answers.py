"""What makes a user's scores right now, and what follows from them? The model, folding in, or popularity.

``model``    the model's own row for a user who has done nothing since the fit
``fold_in``  the model applied to the user's whole history, for users with events since the fit
``macro``    a ranker applied to the macro graph's rows of a user who is new since the fit
``popular``  users per item, for those without any target event, and where the model cannot fold in

Shape letters: B users asked for, I items, C candidates, K ranks, D embedding, H items of a user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn.functional import normalize

from macrorec.api import ItemLinear, Model, Ranker, Reasons, TwoTower
from macrorec.eval.ranking import device_of, evaluating, top_k, top_k_vectors
from macrorec.eval.vectors import Ranking
from macrorec.graph.bipartite import Edges
from macrorec.live import Live
from macrorec.ops.linear import cosine_neighbors

Numbers = npt.NDArray[np.int64]

_BLOCK = 256


class Scores(Model):
    """Any function from user numbers to scores (B, I), in the shape that rankings are made from."""

    def __init__(self, n_items: int, function: Callable[[Tensor], Tensor]) -> None:
        torch.nn.Module.__init__(self)
        self.n_items, self.function = n_items, function

    def score_all(self, users_B: Tensor) -> Tensor:
        return self.function(users_B)


def folds(model: Model) -> bool:
    """Whether ``model`` can score a user from items alone."""
    return type(model).fold_in is not Model.fold_in


def paths(model: Model, live: Live, users: Numbers) -> npt.NDArray[np.str_]:
    """``model``, ``fold_in`` or ``popular`` for each of ``users`` (numbers, -1 unknown)."""
    rows = np.maximum(users, 0)
    if isinstance(model, Ranker):
        nothing = (users < 0) | (live.sizes(rows) + model.macro.user_events(rows) == 0)
        return np.where(nothing, "popular", np.where(rows >= live.n_fitted, "macro", "model"))
    path = np.where(live.changed_U[rows] & folds(model), "fold_in", "model")
    nothing = (users < 0) | (live.sizes(rows) == 0)
    return np.where(nothing | ((path == "model") & (rows >= live.n_fitted)), "popular", path)


def rank(
    model: Model, live: Live, users: Numbers, k: int, *, filter_seen: bool, candidates: Numbers | None
) -> tuple[Ranking, npt.NDArray[np.str_]]:
    """The k best items of each of ``users`` (numbers, -1 unknown), and the path of each."""
    items_BK = np.full((len(users), k), -1, dtype=np.int64)
    scores_BK = np.full((len(users), k), -np.inf, dtype=np.float32)
    path = paths(model, live, users)
    sources: dict[str, Model] = {
        "model": model,
        "macro": model,
        "fold_in": Scores(model.n_items, lambda users_B: model.fold_in(live.history(users_B.numpy()))),
        "popular": Scores(model.n_items, lambda users_B: live.popularity_I.float().repeat(len(users_B), 1)),
    }
    for name, source in sources.items():
        for known in (True, False):
            rows = (path == name) & ((users >= 0) == known)
            if rows.any():
                seen = live.seen if filter_seen and known else None
                found = top_k(source, np.maximum(users[rows], 0), k, seen, candidates=candidates)
                items_BK[rows], scores_BK[rows] = found
    return (items_BK, scores_BK), path


def rank_new(
    model: Model, live: Live, history: Edges, k: int, *, filter_seen: bool, candidates: Numbers | None
) -> tuple[Ranking, str]:
    """The k best items for one new user with ``history``, and the path."""
    path = "fold_in" if len(history) and folds(model) else "popular"

    def score(users_B: Tensor) -> Tensor:
        return model.fold_in(history) if path == "fold_in" else live.popularity_I.float()[None]

    seen = history.csr(model.n_items) if filter_seen else None
    return top_k(Scores(model.n_items, score), np.zeros(1, dtype=np.int64), k, seen, candidates=candidates), path


def score_pairs(
    model: Model, live: Live, users: Numbers, items: Numbers
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.str_]]:
    """Scores of pairs of known numbers, shape (B,), and their paths."""
    path = paths(model, live, users)
    score_B = np.zeros(len(users), dtype=np.float32)
    device = device_of(model)
    with evaluating(model):
        rows = np.flatnonzero((path == "model") | (path == "macro"))
        if len(rows):
            pairs = (torch.from_numpy(numbers[rows]).to(device) for numbers in (users, items))
            score_B[rows] = model.score(*pairs).cpu().numpy()
        rows = np.flatnonzero(path == "fold_in")
        distinct, place = np.unique(users[rows], return_inverse=True)
        for start in range(0, len(distinct), _BLOCK):
            here = (place >= start) & (place < start + _BLOCK)
            block = model.fold_in(live.history(distinct[start : start + _BLOCK])).cpu().numpy()
            score_B[rows[here]] = block[place[here] - start, items[rows[here]]]
    rows = np.flatnonzero(path == "popular")
    score_B[rows] = live.popularity_I.numpy()[items[rows]]
    return score_B, path


def reasons(model: Model, live: Live, user: int, item: int) -> tuple[Tensor, Tensor, bool]:
    """The user's items (H,), what each of them adds to the score of ``item`` (H,), and whether that is exact.

    Where the score is no sum over items, weights are likenesses to ``item``; where it is popularity, there are none.
    """
    if paths(model, live, np.array([user]))[0] == "popular":
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0), False
    own_H = live.items_of(user)
    with evaluating(model):
        weights_H = model.contributions(own_H.to(device_of(model)), item)
        if weights_H is not None:
            return own_H, weights_H.cpu(), True
        if isinstance(model, TwoTower):
            items_ID = normalize(model.encode()[1])
            return own_H, (items_ID[own_H] @ items_ID[item]).cpu(), False
    columns = live.graph.target.csr(model.n_items).T.tocsr()
    number_1K, likeness_1K = cosine_neighbors(columns[[item]], columns, model.n_items, 0.0, same=False)
    likeness_I = torch.zeros(model.n_items).scatter_add(0, number_1K[0], likeness_1K[0])
    return own_H, likeness_I[own_H], False


def why(model: Ranker, user: int, item: int) -> Reasons | None:
    """Why a ranker scores a pair of numbers as it does now; None where it cannot tell."""
    with evaluating(model):
        features = model.macro.features(np.array([user]), np.array([item]))
        return model.reasons(features.to(device_of(model)))


def alike_items(model: Model, live: Live, items: Numbers, k: int) -> Ranking:
    """The k items most like each of ``items``, without itself: by vectors, by weights, or by common users."""
    myself = _one_each(items, model.n_items)
    device = device_of(model)
    if isinstance(model, TwoTower):
        with evaluating(model):
            items_ID = normalize(model.encode()[1])
        return top_k_vectors(items_ID[torch.from_numpy(items).to(device)], items_ID, k, myself)
    if isinstance(model, ItemLinear):
        everything = torch.arange(model.n_items, device=device)
        asked = torch.from_numpy(items).to(device)
        scores = Scores(model.n_items, lambda rows_B: model.similar(asked[rows_B], everything))
        return top_k(scores, np.arange(len(items)), k, myself, block=_BLOCK)
    return _by_cosine(live.graph.target.csr(model.n_items).T.tocsr(), items, k)


def alike_users(model: Model, live: Live, users: Numbers, k: int) -> Ranking:
    """The k users most like each of ``users``, without the user: by vectors, or by common items."""
    if not isinstance(model, TwoTower):
        return _by_cosine(live.graph.target.csr(model.n_items), users, k)
    with evaluating(model):
        vectors_UD = model.encode()[0]
        vectors_UD = torch.cat([vectors_UD, vectors_UD.new_zeros(len(live.users) - live.n_fitted, vectors_UD.shape[1])])
        changed = np.flatnonzero(live.changed_U)
        if len(changed):
            vectors_UD[torch.from_numpy(changed)] = model.fold_in_vectors(live.history(changed))
        vectors_UD = normalize(vectors_UD)
    asked = torch.from_numpy(users).to(vectors_UD.device)
    return top_k_vectors(vectors_UD[asked], vectors_UD, k, _one_each(users, len(live.users)))


def _by_cosine(rows: sp.csr_matrix, asked: Numbers, k: int) -> Ranking:
    """The k rows of largest cosine with each of ``asked``, itself left out; only those with something in common."""
    number_BK, similarity_BK = cosine_neighbors(rows[asked], rows, k + 1, 0.0, same=False)
    other = (number_BK != torch.from_numpy(asked)[:, None]) & (similarity_BK > 0)
    order = (~other).int().argsort(dim=1, stable=True)[:, :k]
    keep = other.gather(1, order)
    numbers = torch.where(keep, number_BK.gather(1, order), -1).numpy()
    return numbers, torch.where(keep, similarity_BK.gather(1, order), -torch.inf).numpy()


def _one_each(numbers: Numbers, n_columns: int) -> sp.csr_matrix:
    """The (B, n_columns) pattern with entry numbers[b] in row b."""
    n = len(numbers)
    ones: Any = np.ones(n, dtype=np.float32)
    return sp.csr_matrix((ones, (np.arange(n), numbers)), shape=(n, n_columns))
