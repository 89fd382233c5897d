"""One command from a log to recommendations: what it takes, writes, shows, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import macrorec
from macrorec.cli import status

Call = Callable[..., tuple[int, str, str]]

ROWS = ["ann,1", "ann,2", "bob,1", "bob,3", "cid,2"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command line in a folder with a small log; answers code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    Path("clicks.csv").write_text("\n".join(["customer,what", *ROWS]) + "\n")

    def called(*arguments: object) -> tuple[int, str, str]:
        code = status([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return called


FIT = ("fit", "clicks.csv", "deep/shop.bundle", "--column", "item_id=what", "--model", "itemknn")


def test_the_bundle_answers_as_the_model_in_python(call: Call) -> None:
    code, out, err = call(*FIT, "--user", "ann", "-k", 1, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    again = macrorec.load("deep/shop.bundle").recommend(["ann"], 1).to_dicts()
    direct = macrorec.fit("clicks.csv", "itemknn", columns={"item_id": "what"}).recommend(["ann"], 1).to_dicts()
    assert told["recommendations"] == again == direct and told["recommendations"][0]["item_id"] == 3
    assert (told["users"], told["items"], told["model"]) == (3, 3, "itemknn")


def test_seed_and_positive_are_those_of_python(call: Call) -> None:
    Path("rated.csv").write_text("user,item,rating\n" + "".join(f"{row},{2 + n}\n" for n, row in enumerate(ROWS)))
    words = ("--positive", 4, "--seed", 3, "--model", "bpr", "--set", "epochs=1", "--user", "bob", "--json", "--quiet")
    told = json.loads(call("fit", "rated.csv", "b", *words)[1])["recommendations"]
    asked = macrorec.fit("rated.csv", "bpr", positive=4, seed=3, epochs=1).recommend(["bob"], 10).to_dicts()
    other = macrorec.fit("rated.csv", "bpr", positive=4, epochs=1).recommend(["bob"], 10).to_dicts()
    assert told == asked != other and len(told) == 1  # of three items with four stars or more, bob has two


def test_without_a_user_it_shows_those_with_the_most_items(call: Call) -> None:
    code, out, _ = call(*FIT, "-k", 2)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:4]] == [["ann", "3"], ["bob", "2"], ["cid", "1"]]
    assert "macrorec recommend deep/shop.bundle --user ann" in out and "--data deep/shop.data" in out


def test_settings_are_those_of_the_model_and_of_its_training(call: Call) -> None:
    words = ("--model", "bpr", "--set", "model.dim=4", "--set", "train.epochs=2", "--set", "l2=0.5", "--quiet")
    assert call(*FIT[:5], *words)[0] == 0
    config = macrorec.load("deep/shop.bundle").module.config
    assert (config.dim, config.l2) == (4, 0.5)
    assert call(*FIT[:5], *words, "--set", "depth=3")[0] == 2


def test_several_behaviours_want_a_target(call: Call) -> None:
    Path("shop.csv").write_text(
        "user,item,event\n" + "".join(f"{row},view\n" for row in ROWS) + "ann,1,buy\nbob,3,buy\n"
    )
    code, _, err = call("fit", "shop.csv", "b")
    assert code == 3 and '--target "buy"' in err
    assert call("fit", "shop.csv", "b", "--target", "buy")[0] == 0
    graph = macrorec.load("b").behaviors
    assert [behavior.name for behavior in graph] == ["view", "buy"] and not graph[0].mask


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (FIT[:3], 3, "no column for item_id"),
        (("fit", "none.csv", "b"), 3, "there is no file 'none.csv'"),
        ((*FIT, "--set", "k"), 2, "--set takes KEY=VALUE, such as dim=32; got 'k'"),
        ((*FIT[:5], "--model", "nosuch"), 2, "unknown model 'nosuch'"),
        ((*FIT, "--device", "tpu"), 2, "unknown device 'tpu'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_bundle(call: Call, words: tuple[str, ...], code: int, says: str) -> None:
    got, out, err = call(*words)
    assert (got, out) == (code, "") and says in err and err.count("\n") == 1
    assert not Path(words[2]).exists()


def test_a_folder_of_somebody_else_is_refused_before_the_fit(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("")
    monkeypatch.setattr("macrorec.recommender.fit", lambda *_, **__: pytest.fail("it was fitted"))
    code, _, err = call("fit", "clicks.csv", "mine", *FIT[3:])
    assert code == 1 and "is not a folder that macrorec wrote" in err and Path("mine/thesis.txt").exists()


def test_an_unknown_user_is_told_and_the_bundle_is_there(call: Call) -> None:
    code, _, err = call(*FIT, "--user", "zoe")
    assert code != 0 and "unknown user id 'zoe'" in err
    assert len(macrorec.load("deep/shop.bundle").users) == 3
