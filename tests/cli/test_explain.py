import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.small_runs import config, write_log

import macrorec
from macrorec.cli import status
from macrorec.data.log import Behavior, Interactions
from macrorec.data.vocab import Vocab
from macrorec.models.itemknn import ItemKNN
from macrorec.run import run

LOG = {
    "user_id": ["ann", "ann", "ann", "bob", "bob", "cid"],
    "item_id": [1, 1, 2, 1, 3, 2],
    "behavior": ["look", "take", "look", "take", "take", "look"],
}


def weigh(self):
    """Of looks (ann 1, ann 2, cid 2) and takes (ann 1, bob 1, bob 3)."""
    return torch.tensor([0.5, 0.25, 1.0]), torch.tensor([1.0, 0.5, 0.5])


@pytest.fixture
def bundle(tmp_path):
    return str(macrorec.fit(LOG, "itemknn", target="take").save(tmp_path / "shop.bundle"))


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Run the command line in a folder of its own; answers code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments):
        code = status([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


def test_the_regions_of_a_user_for_a_reader(call, bundle, monkeypatch):
    code, out, err = call("explain", bundle, "ann")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "ann: 2 items; the model gives edges no weight: events are counted",
        "known by     items  events  look  take  such as",
        "look + take      1  2       1     1     1",
        "look             1  1       1           2",
    ]
    monkeypatch.setattr(ItemKNN, "edge_weights", weigh)
    assert call("explain", bundle, "ann")[1].splitlines() == [
        "ann: 2 items; weight is the mean weight of the edges",
        "known by     items  weight  look    take    such as",
        "look + take      1  0.7500  0.5000  1.0000  1",
        "look             1  0.2500  0.2500          2",
    ]


def test_the_regions_as_json_and_drawn(call, bundle, monkeypatch):
    monkeypatch.setattr(ItemKNN, "edge_weights", weigh)
    code, out, _ = call("explain", bundle, "ann", "--json", "--plot", "deep/ann.svg")
    assert code == 0
    assert json.loads(out) == {
        "user_id": "ann",
        "behaviors": ["look", "take"],
        "regions": [
            {"behaviors": ["look", "take"], "items": 1, "events": [1, 1], "weight": 0.75, "weights": [0.5, 1.0],
             "item_ids": [1]},
            {"behaviors": ["look"], "items": 1, "events": [1], "weight": 0.25, "weights": [0.25], "item_ids": [2]},
        ],
        "plot": "deep/ann.svg",
    }  # fmt: skip
    words = [text.text for text in ET.parse("deep/ann.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"ann", "look", "take", "mean edge weight", "0.75"} <= set(words)


def test_titles_stand_for_items_and_long_lists_are_cut(call, tmp_path):
    log = pl.DataFrame({"user_id": ["ann"] * 5 + ["bob"], "item_id": [1, 2, 3, 4, 5, 1]})
    fitted = macrorec.fit(log, "popular")
    titles = pl.Series(["Alien", None, "x" * 30, "Dune", "E.T."])
    macrorec.Recommender(fitted.module, fitted._fitted[1], fitted.users, fitted.items, titles=titles).save("b")
    code, out, _ = call("explain", "b", "ann")
    assert code == 0
    assert out.splitlines()[-1].endswith(f"Alien, 2, {'x' * 21}..., ...")


def test_an_item_is_explained_as_before(call, bundle):
    code, out, _ = call("explain", bundle, "ann", "3")
    assert code == 0 and out.startswith("ann -> 3: score 0.7071, by model\nweights are the terms of the score")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("zoe",), "unknown user id 'zoe'; there are 3 users, such as 'ann'"),
        (("ann", "3", "--plot", "a.svg"), "--plot draws the regions of a user's items: it takes no ITEM"),
        (("ann", "--plot", "a.png"), "and a file that ends in .svg"),
    ],
)
def test_mistakes_are_one_line(call, bundle, words, message):
    code, out, err = call("explain", bundle, *words)
    assert code != 0 and out == "" and err.count("\n") == 1 and message in err


def test_a_user_of_the_vocabulary_without_events(call):
    users, items = Vocab(pl.Series(["ann", "dan"])), Vocab(pl.Series([1, 2]))
    event = np.zeros(1, dtype=np.int32)
    log = Interactions(users, items, (Behavior(name="take"),), event, event, event.astype(np.int8))
    macrorec.fit(log, "popular").save("b")
    code, _, err = call("explain", "b", "dan")
    assert code != 0 and err == "error: user 'dan' has no items by any behaviour: there is nothing to tell\n"


# --- weights ---------------------------------------------------------------------------------------------------------


def test_weights_of_a_run_in_a_table_a_record_and_json(call, monkeypatch):
    done = run(config(write_log(Path("data")), "itemknn"), name="itemknn-shop")
    code, out, err = call("weights", done.folder)
    assert (code, out) == (2, "")
    assert err == f"error: {done.folder}: the model itemknn gives edges no weights; there is nothing to show of them\n"
    monkeypatch.setattr(ItemKNN, "edge_weights", lambda self: (torch.linspace(0, 1, 241)[1:],))
    code, out, _ = call("weights", done.folder)
    assert code == 0
    head, row, *_, last = out.splitlines()
    shares = "least 5% 25% median 75% 95% largest 5% x n 95% x n"
    assert head.split() == f"behaviour edges mean deviation {shares}".split()
    assert row.split()[:3] == ["interaction", "240", "0.5021"]
    assert last == "wrote results/weights/itemknn-shop.json"
    record = json.loads(call("weights", done.folder, "--json", "--out", "deep/w.json")[1])
    assert record.pop("file") == "deep/w.json"
    for place in ("deep/w.json", "results/weights/itemknn-shop.json"):
        assert json.loads(Path(place).read_text()) == record
