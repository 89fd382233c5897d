"""A bundle that carries a ranker: two whole bundles, one inside the other, under one chain of checksums."""

import json
from pathlib import Path

import pytest
import torch
from tests.small_runs import clicks, config, write_log, write_ratings
from tests.test_bundle import log, saved

from macrorec import models, recommender
from macrorec.bundle import Bundle, check, ranker_of
from macrorec.cli import status
from macrorec.errors import ConfigError, DataError, UserError
from macrorec.graph.bipartite import build
from macrorec.restore import export, restore
from macrorec.run import run
from macrorec.store import Run


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """BPR, with a MacGNN inside."""
    _, ranker = saved(tmp_path / "inner", "macgnn")
    model, _ = saved(tmp_path / "outer", "bpr")
    return Bundle.save(tmp_path / "both", model, build(log()), log().users, log().items, ranker=ranker)


def test_both_models_are_read_back_and_the_outer_one_alone_recommends(both: Path, tmp_path: Path) -> None:
    inner = ranker_of(both)
    assert inner == both / "ranker"
    alone = tmp_path / "inner" / "b"
    assert {p.name: p.read_bytes() for p in inner.iterdir()} == {p.name: p.read_bytes() for p in alone.iterdir()}
    assert type(Bundle.load(inner).model) is models.load("macgnn")
    assert type(Bundle.load(both).model) is models.load("bpr")
    assert (
        recommender.load(both)
        .recommend(["7"], k=2)
        .equals(recommender.load(tmp_path / "outer/b").recommend(["7"], k=2))
    )
    assert ranker_of(alone) is None


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "config.json"])
def test_a_changed_or_missing_file_of_the_ranker_is_found(name: str, both: Path) -> None:
    path = both / "ranker" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        Bundle.load(both)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name} is missing"):
        Bundle.load(both)


def test_a_bundle_takes_in_a_ranker_that_is_whole_and_alone(both: Path, tmp_path: Path) -> None:
    model, folder = saved(tmp_path / "again", "bpr")
    arguments = tmp_path / "new", model, build(log()), log().users, log().items
    with pytest.raises(DataError, match="its own is no ranker"):
        Bundle.save(*arguments, ranker=folder)
    with pytest.raises(DataError, match="there is no such folder"):
        Bundle.save(*arguments, ranker=tmp_path / "nowhere")
    (both / "ranker" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"weights.safetensors is damaged"):
        Bundle.save(*arguments, ranker=both / "ranker")
    assert not (tmp_path / "new").exists()


def test_rankers_are_not_nested_twice(both: Path, tmp_path: Path) -> None:
    macgnn, _ = saved(tmp_path / "middle", "macgnn")
    middle = Bundle.save(tmp_path / "m", macgnn, build(log()), log().users, log().items, ranker=both / "ranker")
    with pytest.raises(DataError, match="carries a ranker itself"):
        Bundle.save(tmp_path / "new", macgnn, build(log()), log().users, log().items, ranker=middle)


def test_a_bundle_without_a_ranker_is_what_older_versions_read(both: Path, tmp_path: Path) -> None:
    assert check(both)["version"] == 2
    assert check(tmp_path / "outer" / "b")["version"] == 1


def test_export_writes_both_runs_and_says_which_cannot_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_ratings(tmp_path / "data")
    ranks = run(clicks(path), name="ranks", root=tmp_path / "runs")
    plain = run(clicks(path, "rates"), name="rates", root=tmp_path / "runs")
    finds = run(config(write_log(tmp_path / "log"), "bpr", dim=4), name="finds", root=tmp_path / "runs")
    folder = export(finds, tmp_path / "shop", ranker=ranks)
    inner = Bundle.load(folder / "ranker")
    assert inner.config["run"] == ranks.name and Bundle.load(folder).config["run"] == finds.name
    with torch.no_grad():
        assert torch.equal(inner.model.score_all(torch.arange(3)), restore(ranks).model.score_all(torch.arange(3)))
    capsys.readouterr()
    verb = ["export", str(finds.folder), str(tmp_path / "again"), "--ranker", str(ranks.folder), "--json"]
    assert status(verb) == 0
    written = json.loads(capsys.readouterr().out)["files"]
    assert {"manifest.json", "ranker/manifest.json", "ranker/macro.safetensors"} < set(written)
    assert Bundle.load(tmp_path / "again" / "ranker").config["run"] == ranks.name
    for first, second, message in (
        (finds, plain, "rates is no ranker"),
        (ranks, ranks, "is a ranker itself"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(first, tmp_path / "no", ranker=second)
    strange = write_log(tmp_path / "strange")
    strange.write_text(
        strange.read_text().replace("\nu", "\nv").replace(",i", ",other").replace("othertem_id", "item_id")
    )
    apart = run(config(strange, "bpr", dim=4), name="apart", root=tmp_path / "runs")
    with pytest.raises(DataError, match="no item in common"):
        export(apart, tmp_path / "no", ranker=ranks)
    with pytest.raises(UserError, match="is no run"):
        export(finds, tmp_path / "no", ranker=Run.open(tmp_path))
    assert not (tmp_path / "no").exists()
