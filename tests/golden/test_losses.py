"""Three epochs of each trained model on a small fixed log: a change of numbers must be meant, and is made here.

``MACROREC_GOLDEN=write pytest tests/golden`` writes ``losses.json`` anew; commit it with the change that moved it.
Tolerance: 1e-5 of each value, for other processors and versions of torch; on one machine runs are equal to the bit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.toys import log_of, samples_of

from macrorec.api import Ranker
from macrorec.graph.bipartite import Graph, build
from macrorec.models.bpr import BPR, BPRConfig
from macrorec.models.deepfm import DeepFM, DeepFMConfig
from macrorec.models.din import DIN, DINConfig
from macrorec.models.fm import FM, FMConfig
from macrorec.models.ghcf import GHCF, GHCFConfig
from macrorec.models.lightgcn import LightGCN, LightGCNConfig
from macrorec.models.lr import LR, LRConfig
from macrorec.models.macgnn import MacGNN, MacGNNConfig
from macrorec.models.mbgcn import MBGCN, MBGCNConfig
from macrorec.models.ncf import NCF, NCFConfig
from macrorec.models.ngcf import NGCF, NGCFConfig
from macrorec.models.nmtr import NMTR, NMTRConfig
from macrorec.models.widedeep import WideDeep, WideDeepConfig
from macrorec.train.trainer import TrainConfig, train

GOLDEN = Path(__file__).with_name("losses.json")
CONFIG = TrainConfig(epochs=3, batch_size=50, lr=0.01, threads=1)
RELATIVE = 1e-5


def fixed_log() -> Graph:
    """30 users, 25 items, user u has u % 9 + 3 items, from arithmetic alone."""
    rows = [(u, (7 * u + j * j + 3 * j) % 25) for u in range(30) for j in range(u % 9 + 3)]
    user, item = np.array(rows).T
    return build(log_of(user, item, 30, 25))


def losses(kind: Any, config: Any) -> list[dict[str, float]]:
    graph = fixed_log()
    model = kind.from_graph(config, graph, torch.Generator().manual_seed(1))
    labelled = samples_of(graph) if issubclass(kind, Ranker) else None
    return [record["losses"] for record in train(model, graph, CONFIG, seed=2, labelled=labelled).epochs]


CASES: dict[str, tuple[Any, Any]] = {
    "bpr": (BPR, BPRConfig(dim=8)),
    "bpr, three negatives, users uniform": (BPR, BPRConfig(dim=8, n_negatives=3, draw="user", true_negatives=False)),
    "lightgcn": (LightGCN, LightGCNConfig(dim=8)),
    "lightgcn, one layer, edges": (LightGCN, LightGCNConfig(dim=8, n_layers=1, draw="edge")),
    "ngcf": (NGCF, NGCFConfig(dim=8)),
    "ngcf, released matrix, two layers": (NGCF, NGCFConfig(dim=8, n_layers=2, matrix="released", init_std=0.1)),
    "ghcf": (GHCF, GHCFConfig(dim=8, negative_weight=0.3)),
    "mbgcn": (MBGCN, MBGCNConfig(dim=8)),
    "ncf, gmf": (NCF, NCFConfig(kind="gmf", dim=8)),
    "ncf, mlp, dropout": (NCF, NCFConfig(kind="mlp", dim=8, dropout=0.3)),
    "ncf, neumf": (NCF, NCFConfig(dim=8, l2=0.01)),
    "nmtr": (NMTR, NMTRConfig(dim=8)),
    "macgnn": (MacGNN, MacGNNConfig()),
    "macgnn, released": (MacGNN, MacGNNConfig(attention="released")),
    "macgnn, without empty groups, dropout": (MacGNN, MacGNNConfig(mask_empty=True, dropout=0.3)),
    "lr": (LR, LRConfig(fields="macro")),
    "fm": (FM, FMConfig()),
    "widedeep": (WideDeep, WideDeepConfig()),
    "deepfm": (DeepFM, DeepFMConfig()),
    "din": (DIN, DINConfig()),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_are_golden(case: str) -> None:
    found = losses(*CASES[case])
    if os.environ.get("MACROREC_GOLDEN") == "write":
        known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps(known | {case: found}, indent=2, sort_keys=True) + "\n")
    expected = json.loads(GOLDEN.read_text())[case]
    assert len(found) == len(expected) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=RELATIVE)


def test_losses_are_equal_to_the_bit_in_one_process() -> None:
    assert losses(*CASES["lightgcn"]) == losses(*CASES["lightgcn"])
