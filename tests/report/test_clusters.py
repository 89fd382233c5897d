from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from macrorec.clusters import Clusters, Side
from macrorec.data.vocab import Vocab
from macrorec.report.clusters import Found, Labels, counts, members, preferred, purity, summary

# Seven items in three clusters: 0, 1, 2, 3 | 4, 5 | 6 without an event; labels a a b - | b b | a; titles for two.
STRENGTH = [[0.6, 0.3, 0.1], [0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.7, 0.2, 0.1],
            [0.2, 0.8, 0.0], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]]  # fmt: skip
PREFERENCE = [[0.9, 0.6, 0.4], [0.1, 0.2, 0.3], [0.7, 0.7, 0.0]]
ITEMS = Side(Vocab(list("tuvwxyz")), np.array([5, 1, 2, 9, 3, 3, 0]), np.array(STRENGTH, dtype=np.float32))
USERS = Side(Vocab(["ann", "bob", "cid"]), np.array([9, 0, 14]), np.array(PREFERENCE, dtype=np.float32))
LABELS = Labels(np.array([0, 0, 1, -1, 1, 1, 0]), ["red", "blue"], "colours of items.csv")
TITLES = pl.Series(["Alien", None, None, "Dune", None, None, None])
FOUND = Found(Clusters(USERS, ITEMS, 77), LABELS, TITLES, "")


def test_the_whole_by_hand() -> None:
    told = summary(FOUND, top=2)
    against = told.pop("against")
    assert {key: told[key] for key in ("items", "users", "without_cluster", "until")} == {
        "items": 7, "users": 3, "without_cluster": {"items": 1, "users": 1}, "until": 77,
    }  # fmt: skip
    first, second, third = told["clusters"]
    numbers = [(row["size"], row["users"], row["liked"], row["label"]) for row in (first, second, third)]
    assert numbers == [(4, 2, 2, "red"), (2, 0, 2, "blue"), (0, 0, 0, None)]
    assert [row["mass"] for row in (first, second, third)] == pytest.approx([3.3, 2.5, 0.2])
    assert [first["purity"], second["purity"], third["purity"]] == [pytest.approx(2 / 3), 1.0, None]
    assert [(item["item_id"], item["title"], item["events"]) for item in first["top"]] == [
        ("u", None, 1),
        ("w", "Dune", 9),
    ]
    assert against.pop("agreement") == pytest.approx(adjusted_mutual_info_score([0, 0, 1, 1, 1], [0, 0, 0, 1, 1]))
    assert against == {"what": "colours of items.csv", "items": 5, "labels": 2, "purity": 4 / 5, "one_cluster": 3 / 5}


def test_top_items_are_the_strongest_or_those_of_most_events() -> None:
    assert members(FOUND.clusters, 0).tolist() == [1, 3, 0, 2]
    assert members(FOUND.clusters, 0, "events").tolist() == [3, 0, 2, 1]
    assert members(FOUND.clusters, 2).tolist() == []


def test_what_a_user_prefers() -> None:
    rows = preferred(FOUND, 2, k=2, top=1)
    assert [(row["cluster"], row["top"][0]["item_id"]) for row in rows] == [(0, "u"), (1, "x")]
    assert [row["preference"] for row in rows] == pytest.approx([0.7, 0.7])


@pytest.mark.parametrize("seed", range(5))
def test_purity_is_the_share_of_items_whose_cluster_has_their_name(seed: int) -> None:
    """Item by item, in plain Python."""
    random = np.random.default_rng(seed)
    group, label = random.integers(-1, 4, 60), random.integers(-1, 5, 60)
    pairs = [(g, c) for g, c in zip(group.tolist(), label.tolist(), strict=True) if g >= 0 and c >= 0]
    tables = {g: [c for other, c in pairs if other == g] for g in range(4)}
    names = {g: max(range(5), key=own.count) for g, own in tables.items()}
    assert purity(counts(group, label, 4)) == pytest.approx(sum(names[g] == c for g, c in pairs) / len(pairs))
    assert counts(group, label, 4).sum() == len(pairs)


def test_purity_at_its_ends() -> None:
    group = np.array([0, 0, 1, 1])
    assert purity(counts(group, np.array([3, 3, 0, 0]), 2)) == 1
    assert purity(counts(group, np.array([0, 1, 0, 1]), 2)) == 1 / 2
    assert purity(counts(np.arange(4), np.array([0, 1, 0, 1]), 4)) == 1, "as ever, where every cluster is one item"
    assert np.isnan(purity(counts(group, np.full(4, -1), 2)))


def test_without_labels() -> None:
    told = summary(replace(FOUND, labels=None, missing="nothing known"))
    assert told["against"] is None and "purity" not in told["clusters"][0]


def test_planted_users_count_too() -> None:
    told = summary(replace(FOUND, planted_users=np.array([1, 0, 1])))
    assert told["against"]["users_agreement"] == pytest.approx(1.0)
