import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.small_runs import clicks, write_ratings

import macrorec
from macrorec.cli import status
from macrorec.data.vocab import Vocab
from macrorec.graph.assignment import fit_items
from macrorec.graph.groups import ByFile
from macrorec.models.itemknn import ItemKNN
from macrorec.restore import export
from macrorec.run import run

Call = Callable[..., tuple[int, str, str]]
NONE = np.zeros(0, dtype=np.int32)


def coloured(self: ItemKNN) -> tuple[torch.Tensor, torch.Tensor]:
    """Users and items of ``write_ratings`` in two clusters, by the parity of their id, less sure as ids rise."""
    sides = []
    for n, letter in ((self.n_users, "u"), (self.n_items, "i")):
        ids = sorted(f"{letter}{number}" for number in range(n))
        sure = torch.tensor([0.9 - 0.01 * int(name[1:]) for name in ids])
        odd = torch.tensor([int(name[1:]) % 2 for name in ids])
        sides.append(torch.where(odd[:, None] == torch.arange(2), sure[:, None], 1 - sure[:, None]))
    return sides[0], sides[1]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command line in a folder of its own; answers code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: object) -> tuple[int, str, str]:
        code = status([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run over the ratings of ``write_ratings``, whose items are red or blue by parity."""
    monkeypatch.setattr(ItemKNN, "clusters", coloured)
    return run(clicks(write_ratings(tmp_path), "itemknn"), name="itemknn-r", root=tmp_path).folder


def test_the_table_of_all_clusters(call: Call, place: Path) -> None:
    code, out, err = call("clusters", place)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "2 clusters of 18 items, as 24 users prefer them"
    head, even, odd = (line.split() for line in lines[2:5])
    assert head == ["cluster", "items", "mass", "users", "liked", "purity", "mostly", "such", "as"]
    assert even == ["0", "9", "9.1", "12", "12", "1.000", "red", "Item", "0;", "Item", "2;", "Item", "4"]
    assert odd[:8] == ["1", "9", "8.9", "12", "12", "1.000", "blue", "Item"]
    assert lines[6:] == [
        "against categories 'genre' of items.csv, the first of several: 17 items, 2 labels",
        "purity 1.000, all in one cluster 0.529; adjusted mutual information 1.000",
    ]


def test_a_bundle_says_the_same_and_json_says_all(call: Call, place: Path, tmp_path: Path) -> None:
    from macrorec.store import Run

    bundle = export(Run.open(place), tmp_path / "shop")
    one, other = (json.loads(call("clusters", where, "--json", "--top", 1)[1]) for where in (place, bundle))
    assert one == other and set(one) == {
        "items", "users", "without_cluster", "until", "against", "clusters",
    }  # fmt: skip
    assert one["clusters"][1]["top"] == [
        {"item_id": "i1", "title": "Item 1", "strength": pytest.approx(0.89), "events": 20}
    ]
    (tmp_path / "items.csv").unlink()
    code, out, _ = call("clusters", bundle)
    assert code == 0 and "purity is not known: there is no file" in out and "Item 0; Item 2; Item 4" in out


def test_another_item_file_and_a_market(call: Call, place: Path, tmp_path: Path) -> None:
    rows = ["item_id,shape,called", *(f"i{n},{'round' if n < 9 else 'flat'},No {n}" for n in range(18))]
    Path("shapes.csv").write_text("\n".join(rows) + "\n")
    code, out, _ = call("clusters", place, "--items", "shapes.csv", "--category", "shape", "--title", "called")
    assert code == 0 and "against categories 'shape' of shapes.csv" in out and "No 0; No 2; No 4" in out
    ids = [f"i{n}" for n in range(18)]
    pl.DataFrame({"user_id": ["u0", "u1", "u3"], "group": [0, 1, 1]}).write_parquet("users.parquet")
    pl.DataFrame({"item_id": ids, "cluster": [n % 2 for n in range(18)]}).write_parquet("items.parquet")
    code, out, _ = call("clusters", place, "--truth", ".")
    assert code == 0 and out.splitlines()[-3:] == [
        "against planted clusters of the market: 18 items, 2 labels",
        "purity 1.000, all in one cluster 0.500; adjusted mutual information 1.000",
        "users by their strongest cluster, against planted groups: 1.000",
    ]


def test_what_a_user_prefers(call: Call, place: Path) -> None:
    code, out, _ = call("clusters", place, "--user", "u3", "-k", 1, "--by", "strength")
    assert code == 0
    first, head, row = out.splitlines()
    assert first.startswith("u3: ") and head.split() == ["cluster", "preference", "such", "as"]
    assert row.split() == ["1", "0.8700", "Item", "1;", "Item", "3;", "Item", "5"]
    told = json.loads(call("clusters", place, "--user", "u3", "--json")[1])
    assert [row["cluster"] for row in told["clusters"]] == [1, 0] and told["user_id"] == "u3"


@pytest.mark.parametrize("projection", ["pca", "tsne"])
def test_the_map(call: Call, place: Path, projection: str) -> None:
    code, out, _ = call("clusters", place, "--plot", "deep/map.svg", "--projection", projection)
    assert code == 0 and out.splitlines()[-1] == "wrote deep/map.svg"
    words = [text.text for text in ET.parse("deep/map.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"0 (9)", "1 (9)"} <= set(words)


def test_what_is_written_is_what_a_ranker_reads(call: Call, place: Path) -> None:
    code, out, _ = call("clusters", place, "--out", "deep/groups.parquet")
    assert code == 0 and out.splitlines()[-1] == "wrote deep/groups.parquet"
    frame = pl.read_parquet("deep/groups.parquet")
    assert frame.columns == ["item_id", "events", "group", "strengths"]
    wanted = Vocab([f"i{n}" for n in (3, 8, 11, 99)])
    read = fit_items(ByFile(path="deep/groups.parquet"), wanted, None, NONE, NONE, None, 0, seed=0).groups
    assert read.of_N.tolist() == [1, 0, 1, -1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--user", "zoe"), "unknown user id 'zoe'; there are 24 users, such as 'u0'"),
        (("--plot", "map.png"), "--plot ends in '.png'; it must end in .svg"),
        (("--out", "groups.csv"), "--out ends in '.csv'; it must end in .parquet"),
        (("--by", "size"), "--by is 'size'; allowed are strength, events"),
        (("--plot", "map.svg", "--projection", "umap"), "projection is 'umap'; allowed are pca, tsne"),
        (("--pick", "best"), "pick is 'best'; allowed are first, last, rarest, all"),
        (("--items", "nowhere.csv"), "there is no file 'nowhere.csv'"),
        (("--truth", "nowhere"), "cannot be read as the truth of a market"),
    ],
)
def test_mistakes_are_one_line(call: Call, place: Path, words: tuple[str, ...], message: str) -> None:
    code, out, err = call("clusters", place, *words)
    assert code != 0 and out == "" and err.count("\n") == 1 and message in err


def test_a_model_without_clusters(call: Call, tmp_path: Path) -> None:
    done = run(clicks(write_ratings(tmp_path), "itemknn"), name="itemknn-r", root=tmp_path)
    bundle = macrorec.fit(pl.DataFrame({"user_id": [1, 2], "item_id": [1, 1]}), "popular").save("b")
    for where, model in ((done.folder, "itemknn"), (bundle, "popular")):
        code, out, err = call("clusters", where)
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert f"{where}: there are no clusters to show: the model {model} has none; ccbie has" in err
    code, _, err = call("clusters", tmp_path / "nothing")
    assert code != 0 and "is no run" in err and err.count("\n") == 1


def test_a_log_without_an_item_file(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ItemKNN, "clusters", lambda self: (torch.eye(2), torch.eye(2)))
    macrorec.fit(pl.DataFrame({"user_id": ["a", "b"], "item_id": [7, 9]}), "itemknn").save("b")
    code, out, _ = call("clusters", "b")
    assert code == 0 and out.splitlines()[-1].startswith("purity is not known: the log came without an item file")
    code, _, err = call("clusters", "b", "--category", "genre")
    assert code == 2 and "--category and --title are columns of an item file: name it by --items, too" in err
