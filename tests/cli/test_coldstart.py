"""The study of new users, from the command line to the page."""

import json
from pathlib import Path

import pytest
from tests.cli.test_run import write_toml
from tests.small_runs import write_log

from macrorec import recipes
from macrorec.cli import status
from macrorec.cli.coldstart import rule_of


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "data")
    write_toml(tmp_path / "tiny.toml", "ease")

    def run(*arguments):
        code = status(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_study_stands_on_file_and_on_the_page(call):
    words = (
        "coldstart",
        "tiny.toml",
        "--items",
        "1,3",
        "--share",
        "0.3",
        "--rules",
        "popular",
        "--set",
        "model.l2=2.0",
    )
    code, out, err = call(*words)
    assert code == 0 and "seed 0: 9 users give all items" in err
    assert out.splitlines()[0].split() == ["ndcg@3,", "by", "items", "given", "1", "3", "all"]
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["fold-in", "retrained", "popular"]
    kept = json.loads(Path("results/coldstart/tiny-model.l2=2.0.json").read_text())
    assert kept["command"] == (
        "macrorec coldstart tiny.toml --items 1,3 --share 0.3 --rules popular --seeds 0 --set model.l2=2.0"
    )
    assert (kept["recipe"], kept["users"], kept["items"]) == ("tiny model.l2=2.0", [9], [1, 3, "all"])
    page = Path("docs/results.md").read_text()
    assert "## New users\n\n### tiny model.l2=2.0\n" in page and kept["command"] in page
    assert Path("docs/plots/coldstart-tiny-model.l2=2.0.svg").is_file()
    answer = json.loads(call(*words, "--json")[1])
    assert {key: answer[key] for key in ("ways", "differences")} == {k: kept[k] for k in ("ways", "differences")}


def test_rules_are_set_as_in_their_recipes():
    config = recipes.load("bpr-ml-100k-u1")
    assert rule_of("ease", "bpr-ml-100k-u1", config) == recipes.load("ease-ml-100k-u1").model
    assert rule_of(" userknn", "bpr-nowhere", config).k == 100


def test_mistakes_are_one_line(call):
    for words, message in (
        (["--items", "1,x"], "--items takes whole numbers with commas"),
        (["--items", "5,3"], "must ascend"),
        (["--share", "2"], "must lie between 0 and 1"),
        (["--rules", "eas"], "unknown model 'eas'"),
    ):
        code, out, err = call("coldstart", "tiny.toml", *words)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1, err
