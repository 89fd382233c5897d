import json
from pathlib import Path

import numpy as np
import pytest
import torch

from macrorec import configs, files, models
from macrorec.api import TwoTower
from macrorec.bundle import MANIFEST, REQUIRED, Bundle
from macrorec.data.log import Behavior, Interactions
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError, UserError
from macrorec.graph.bipartite import build

ODD_IDS = ["a b", '"quoted"', "🛒", "x" * 10_000, "7", "007"]


def log() -> Interactions:
    """Six users, five items, view and buy; user 5 and item 4 have no purchase."""
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(6, dtype=np.int32), 4)
    item = random.integers(0, 5, size=24).astype(np.int32)
    behavior = np.tile(np.array([0, 1, 1, 0], dtype=np.int8), 6)
    behavior[(user == 5) | (item == 4)] = 0
    behaviors = (Behavior(name="view", role="auxiliary", weight=0.5, mask=False), Behavior(name="buy"))
    return Interactions(Vocab(ODD_IDS), Vocab([3, 1, 4, 15, 9]), behaviors, user, item, behavior)


def saved(folder: Path, name: str) -> tuple[models.Model, Path]:
    graph = build(log())
    model = models.load(name).from_graph(models.load(name).Config(), graph, torch.Generator().manual_seed(1))
    model.solve(graph, torch.Generator().manual_seed(1))
    return model.eval(), Bundle.save(folder / "b", model, graph, log().users, log().items, {"note": [1, "ü"]})


@pytest.mark.parametrize("name", models.names())
def test_every_model_scores_the_same_after_saving_and_loading(name: str, tmp_path: Path) -> None:
    model, folder = saved(tmp_path, name)
    bundle = Bundle.load(folder)
    with torch.no_grad():
        everyone = torch.arange(6)
        assert torch.equal(bundle.model.score_all(everyone), model.score_all(everyone))
    assert bundle.model.config == model.config and not bundle.model.training
    assert bundle.users == log().users and bundle.items == log().items
    assert bundle.config == {"note": [1, "ü"]}
    graph = build(log())
    assert bundle.graph.behaviors == graph.behaviors
    for mine, theirs in zip(bundle.graph.edges, graph.edges, strict=True):
        for field in ("user_E", "item_E", "weight_E", "count_E", "start_U"):
            assert torch.equal(getattr(mine, field), getattr(theirs, field))
    assert bundle.popularity.tolist() == graph.target.degrees(5)[1].tolist()
    assert (folder / "vectors.safetensors").exists() == isinstance(model, TwoTower)


def test_nothing_in_a_bundle_is_pickled(tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "bpr")
    assert {path.suffix for path in folder.iterdir()} == {".json", ".parquet", ".safetensors"}


@pytest.mark.parametrize("name", [*REQUIRED, "vectors.safetensors", MANIFEST])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "bpr")
    (folder / name).unlink()
    with pytest.raises(DataError, match=name):
        Bundle.load(folder)


@pytest.mark.parametrize("name", [*REQUIRED, "vectors.safetensors"])
def test_a_flipped_bit_is_found(name: str, tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "bpr")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        Bundle.load(folder)


def forge(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "has bundle format 3, newer than 2"),
        ({"version": "1"}, "has bundle format 1, newer"),
        ({"format": "zip"}, "does not say 'macrorec-bundle'"),
        ({"sha256": {"../../etc/passwd": "0"}}, "does not list plain file names"),
        ({"sha256": []}, "does not list plain file names"),
        ({"sha256": {}}, "config.json is missing"),
    ],
)
def test_a_manifest_that_lies_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "popular")
    forge(folder, **changes)
    with pytest.raises(DataError, match=message):
        Bundle.load(folder)


def resealed(folder: Path, name: str) -> None:
    sums = json.loads((folder / MANIFEST).read_text())["sha256"]
    forge(folder, sha256={**sums, name: files.sha256(folder / name)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "os"}}, "unknown model 'os'"),
        ({"model": {"name": "bpr", "dim": 3}}, "cannot be read as a bundle"),
        ({"model": {"name": "bpr", "dimm": 3}}, "unknown key 'model.dimm'"),
        ({"behaviors": [{"name": "buy"}]}, "cannot be read as a bundle"),
        ({"behaviors": 3}, "cannot be read as a bundle"),
    ],
)
def test_a_bundle_sealed_with_a_wrong_config_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    _, folder = saved(tmp_path, "bpr")
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, **change}))
    resealed(folder, "config.json")
    with pytest.raises(UserError, match=message) as caught:
        Bundle.load(folder)
    assert "\n" not in str(caught.value)


def test_numbers_that_point_outside_are_refused(tmp_path: Path) -> None:
    from macrorec import weights

    _, folder = saved(tmp_path, "bpr")
    tensors = weights.read(folder / "graph.safetensors")
    tensors["1.item_E"][0] = 5
    weights.write(folder / "graph.safetensors", tensors)
    resealed(folder, "graph.safetensors")
    with pytest.raises(DataError, match="graph of behaviour 1 does not fit 6 users and 5 items"):
        Bundle.load(folder)


def test_saving_again_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path, "bpr")
    _, folder = saved(tmp_path, "ease")
    assert Bundle.load(folder).model.config == models.load("ease").Config()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    bundle = Bundle.load(folder)
    with pytest.raises(UserError, match="not a folder that macrorec wrote"):
        Bundle.save(tmp_path / "mine", bundle.model, bundle.graph, bundle.users, bundle.items)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        Bundle.load(tmp_path / "none")
    with pytest.raises(DataError, match="it has no manifest"):
        Bundle.load(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Bundle.load(tmp_path)


def test_the_model_of_a_config_is_its_file() -> None:
    for name in models.names():
        assert configs.model_name(models.load(name).Config()) == name
