from pathlib import Path

import numpy as np
import pytest
import torch
from tests.test_bundle import log, saved

from macrorec import files, models
from macrorec.bundle import MANIFEST, Bundle
from macrorec.data.log import Behavior, Interactions
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError
from macrorec.graph.bipartite import build, edges_of
from macrorec.serve.canary import Canary
from macrorec.serve.deployment import Deployment
from macrorec.serve.retrieve import Exact

NOTHING = np.zeros(0, dtype=np.int64)


def nested(folder: Path, outer: str = "bpr") -> Path:
    """A retrieving bundle; its ranker knows the items in another order, one of them not, and other users."""
    ranking, _ = saved(folder / "inner", "macgnn")
    users, items = Vocab(["x", "7", "a b", "y", "z", "w"]), Vocab([9, 15, 4, 1, 77])
    ranker = Bundle.save(folder / "ranker", ranking, build(log()), users, items)
    model, _ = saved(folder / "outer", outer)
    return Bundle.save(folder / "both", model, build(log()), log().users, log().items, ranker=ranker)


def test_the_version_is_that_of_the_manifest_and_so_of_every_file(tmp_path: Path) -> None:
    folder = nested(tmp_path)
    first = Deployment.load(folder)
    assert first.version == files.sha256(folder / MANIFEST)[:12]
    model, _ = saved(tmp_path / "again", "ease")
    Bundle.save(folder, model, build(log()), log().users, log().items, ranker=tmp_path / "ranker")
    assert Deployment.load(folder).version != first.version


def test_numbers_of_the_two_models_are_matched_by_id(tmp_path: Path) -> None:
    deployment = Deployment.load(nested(tmp_path))
    assert deployment.ranker_bundle is not None
    assert deployment.ranker_items_I.tolist() == [-1, 3, 2, 1, 0]  # 3, 1, 4, 15, 9
    assert deployment.ranker_users_U.tolist() == [2, -1, -1, -1, 1, -1]
    _, plain = saved(tmp_path / "plain", "bpr")
    deployment = Deployment.load(plain)
    assert deployment.ranker_bundle is None and deployment.ranker_items_I.tolist() == [-1] * 5


@pytest.mark.parametrize("name", ["bpr", "lightgcn", "ease", "itemknn"])
def test_known_users_get_the_models_ranking_and_changed_or_new_ones_are_folded_in(name: str, tmp_path: Path) -> None:
    model, folder = saved(tmp_path, name)
    deployment = Deployment.load(folder)
    with torch.no_grad():
        known, history = model.score_all(torch.tensor([2]))[0], np.array([3, 0, 3])
        folded = model.fold_in(edges_of(np.zeros(2, dtype=np.int64), np.array([0, 3]), 1, 5))[0]
    for scores, path, changed, user in (
        (known, "model", False, 2),
        (folded, "fold_in", True, 2),
        (folded, "fold_in", False, -1),
    ):
        found = deployment.retrieve(user, history, 3, lambda numbers: numbers == 1, changed=changed)
        assert found is not None and found.path == path
        scores[1] = -torch.inf
        order = torch.argsort(-scores, stable=True)[:3]
        assert found.numbers.tolist() == order.tolist()
        torch.testing.assert_close(torch.from_numpy(found.scores), scores[order])


def test_a_folded_in_vector_keeps_nothing_but_itself_alive(tmp_path: Path) -> None:
    """Thousands of them are kept: a view would keep a tensor, and with it 5 kB, for each."""
    _, folder = saved(tmp_path, "bpr")
    assert Deployment.load(folder).fold_in(np.array([1, 3])).base is None


def test_there_is_no_answer_where_there_is_nothing_to_go_by(tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "bpr")
    deployment = Deployment.load(folder)
    assert deployment.retrieve(2, NOTHING, 3) is None
    assert deployment.retrieve(-1, np.array([-1, 99]), 3) is None
    _, folder = saved(tmp_path / "m", "macgnn")
    alone = Deployment.load(folder)
    assert alone.ranker_bundle is alone.retriever_bundle
    assert alone.retrieve(2, np.array([1]), 3) is None


@pytest.mark.parametrize("outer", ["bpr", "ease"])
def test_warming_up_changes_nothing(outer: str, tmp_path: Path) -> None:
    deployment = Deployment.load(nested(tmp_path, outer))
    before = deployment.retrieve(2, np.array([1]), 3)
    deployment.warm_up()
    after = deployment.retrieve(2, np.array([1]), 3)
    assert before is not None and after is not None
    assert (before.numbers.tolist(), before.scores.tolist()) == (after.numbers.tolist(), after.scores.tolist())


def test_damage_is_found_on_loading(tmp_path: Path) -> None:
    folder = nested(tmp_path)
    (folder / "ranker" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"weights.safetensors is damaged"):
        Deployment.load(folder)


def test_a_large_catalogue_is_searched_by_an_index_that_is_kept_beside_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from macrorec.serve import deployment as module

    random = np.random.default_rng(0)
    pairs = np.unique(random.integers(0, [300, 3_000], size=(9_000, 2)), axis=0)
    zeros = np.zeros(len(pairs), dtype=np.int8)
    user, item = pairs.astype(np.int32).T
    many = Interactions(Vocab(np.arange(300)), Vocab(np.arange(3_000)), (Behavior(name="buy"),), user, item, zeros)
    graph = build(many)
    model = models.load("bpr").from_graph(models.load("bpr").Config(), graph, torch.Generator().manual_seed(0))
    folder = Bundle.save(tmp_path / "shop", model, graph, many.users, many.items)
    exact = Deployment.load(folder)
    assert exact.index_health() is None and isinstance(exact.retriever, Exact)
    monkeypatch.setattr(module, "SMALL", 3_000)
    assert Deployment.load(folder, index="exact").index_health() is None
    for how in ("built in", "read from"):
        deployment = Deployment.load(folder)
        assert isinstance(deployment.retriever, Canary) and deployment.retriever.wait(60)
        health = deployment.index_health()
        assert health is not None and health.reason.startswith(how) and health.kind == "ivf-sq8"
        deployment.warm_up()
        for mine, right in zip(
            deployment.retriever.search(deployment.vector(7)[None], 20),
            exact.retriever.search(exact.vector(7)[None], 20),
            strict=True,
        ):
            assert len(np.intersect1d(mine, right)) >= 19
        deployment.close()
        assert deployment.index_health().state == "closed"
    assert [path.name[:6] for path in (tmp_path / "shop.index").iterdir()] == ["index-"]
