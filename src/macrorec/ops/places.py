"""Which items get the few places of a list, and in which order, where some kinds of hit are worth more than others?

A bonus decides who gets a place, for a hit is worth it anywhere in the list; the order within the list is by score
alone, so that the likelier item stands higher. A bonus that also ordered the list would pay for nothing.

Shape letters: B users, I items, K places.
"""

from __future__ import annotations

import torch
from torch import Tensor


def placed(score_BI: Tensor, bonus_BI: Tensor, free_BI: Tensor, n_places: int) -> Tensor:
    """Scores (B, I) whose order is: the ``n_places`` free items of the largest score + bonus, by score; then the rest.

    The rest stands by score + bonus, lowered as far as it takes to stay behind. So the first k items are the same set
    as by score + bonus, for every k >= ``n_places``. Items that are not ``free_BI`` take no place.
    """
    raised_BI = score_BI + bonus_BI
    k = min(n_places, score_BI.shape[1])
    if not k:
        return raised_BI
    in_BK = raised_BI.masked_fill(~free_BI, -torch.inf).topk(k, 1).indices
    in_BI = torch.zeros_like(free_BI).scatter(1, in_BK, value=True) & free_BI
    least_B1 = score_BI.masked_fill(~in_BI, torch.inf).amin(1, keepdim=True)
    most_B1 = raised_BI.masked_fill(in_BI, -torch.inf).amax(1, keepdim=True)
    gap_B1 = torch.where(most_B1 >= least_B1, most_B1 - least_B1 + 1, 0)
    return torch.where(in_BI, score_BI, raised_BI - gap_B1)
