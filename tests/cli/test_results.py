"""Clicks from the command line; the runs that a verb would start as processes run here."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from macrorec.cli import results as module
from macrorec.cli import status
from macrorec.cli.target import resolve
from macrorec.store import Run


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp,label"]
    for time in range(600):
        user, item, luck = random.integers(12), random.integers(12), random.integers(3)
        rows.append(f"u{user},i{item},{time},{(user + item + luck) % 2}")
    Path("log.csv").write_text("\n".join(rows) + "\n")
    for model in ("bpr", "popular"):
        Path(f"{model}-shop.toml").write_text(
            f"""
            source = {{ path = "log.csv", time_unit = "s" }}
            model.name = "{model}"
            train = {{ epochs = 2, batch_size = 64 }}
            prepare.dedupe = "none"
            eval = {{ protocol = "ctr", metrics = ["auc", "gauc", "logloss"] }}
            [split]
            vocabulary = "all"
            test = {{ kind = "time-quantile", quantile = 0.7 }}
            valid = {{ kind = "time-quantile", quantile = 0.9 }}
            """
        )
    started = []

    def alone(*arguments):
        started.append(arguments)
        with redirect_stdout(StringIO()):
            return status([*arguments, "--quiet"])

    monkeypatch.setattr(module, "alone", alone)

    def run(*arguments):
        code = status(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    run.started = started
    return run


def test_recipes_and_variants_stand_on_the_page_with_intervals(call):
    words = ("bpr-shop.toml", "--set", "model.dim=3", "--seeds", "0,1", "--against", "popular-shop.toml")
    code, out, _ = call("reproduce", *words)
    assert code == 0 and "wrote docs/results.md" in out
    assert len(call.started) == 4
    files = sorted(path.as_posix() for path in Path("results").rglob("*.json"))
    assert files == [
        "results/comparisons/bpr-shop-model.dim=3-against-popular-shop-all.json",
        "results/comparisons/bpr-shop-model.dim=3-against-popular-shop-warm.json",
        "results/recipes/popular-shop-0.json",
        "results/recipes/popular-shop-1.json",
        "results/variants/bpr-shop-model.dim=3-0.json",
        "results/variants/bpr-shop-model.dim=3-1.json",
    ]
    found = json.loads(Path(files[0]).read_text())
    assert found["command"] == "macrorec reproduce " + " ".join(words)
    runs = [json.loads(Path(name).read_text()) for name in files[2:]]
    auc = [run["metrics"]["test"]["auc"] for run in runs]
    assert found["metrics"][0]["difference"] == pytest.approx(np.mean(auc[2:]) - np.mean(auc[:2]), rel=1e-12)
    page = Path("docs/results.md").read_text()
    assert f"{found['metrics'][0]['difference']:+.4f} (" in page
    assert found["command"] in page and "macrorec reproduce popular-shop.toml --seeds 0,1" in page
    assert Path("docs/plots/reliability-shop.svg").is_file()
    record = json.loads(call("evaluate", f"runs/{found['first']['runs'][0]}", "--json")[1])
    assert record["cohorts"] == runs[2]["cohorts"] and record["reliability"] == runs[2]["reliability"]
    assert "cold user" in call("evaluate", f"runs/{found['first']['runs'][0]}")[1]
    first, second = ([f"runs/{name}" for name in found[side]["runs"]] for side in ("first", "second"))
    code, out, _ = call("compare", "runs/bpr-shop-*", "--against", "runs/popular-*", "--metric", "auc", "--json")
    again = json.loads(out)
    assert code == 0 and again["metrics"] == found["metrics"]
    assert again["command"].startswith("macrorec compare 'runs/bpr-shop-*' --against 'runs/popular-*' --part test")
    code, out, _ = call("compare", *first, "--against", second[0], "--resamples", "50", "--out", "c/one.json")
    assert code == 0 and "2 against 1 runs, all impressions" in out and Path("c/one.json").is_file()


def test_ablations_stand_against_the_whole(call, monkeypatch):
    monkeypatch.setattr("macrorec.recipes.ablations", lambda name: ("model.dim=2", "model.l2=0.0"))
    code, _, _ = call("reproduce", "bpr-shop.toml", "--ablations", "--seeds", "0")
    assert code == 0 and len(call.started) == 3
    comparisons = sorted(path.name for path in Path("results/comparisons").glob("*-all.json"))
    assert comparisons == [f"bpr-shop-model.{part}-against-bpr-shop-all.json" for part in ("dim=2", "l2=0.0")]
    found = json.loads(Path("results/comparisons", comparisons[0]).read_text())
    assert found["command"] == "macrorec reproduce bpr-shop.toml --set model.dim=2 --seeds 0 --against bpr-shop.toml"


def test_a_sweep_has_a_table_a_plot_and_a_command(call):
    code, out, _ = call("sweep", "bpr-shop.toml", "--key", "model.dim", "--values", "2,4", "--seeds", "0,1", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["file"] == "results/sweeps/bpr-shop-model.dim.json"
    assert [entry["value"] for entry in answer["values"]] == [2, 4]
    runs = [Run.open(f"runs/{name}") for name in answer["values"][1]["runs"]]
    assert [run.config["model"]["dim"] for run in runs] == [4, 4]
    mean = np.mean([run.metrics["test"]["auc"] for run in runs])
    assert answer["values"][1]["test"]["auc"]["mean"] == pytest.approx(mean, rel=1e-12)
    page = Path("docs/results.md").read_text()
    assert "macrorec sweep bpr-shop.toml --key model.dim --values 2,4 --seeds 0,1" in page
    assert "](plots/sweep-bpr-shop-model.dim.svg)" in page and Path("docs/plots/sweep-bpr-shop-model.dim.svg").is_file()


def test_a_recipe_s_studies_are_swept_without_being_spelled(call, monkeypatch):
    monkeypatch.setattr("macrorec.recipes.sweeps", lambda name: {"model.dim": "2,4", "model.l2": "0,0.5"})
    monkeypatch.setattr("macrorec.recipes.load", lambda name: resolve("bpr-shop.toml", [], None)[1])
    code, out, _ = call("sweep", "bpr-shop", "--seeds", "0", "--set", "train.epochs=1", "--json")
    found = json.loads(out)["sweeps"]
    assert code == 0 and [study["key"] for study in found] == ["model.dim", "model.l2"]
    assert [[entry["value"] for entry in study["values"]] for study in found] == [[2, 4], [0.0, 0.5]]
    command = "macrorec sweep bpr-shop --key model.l2 --values 0,0.5 --seeds 0 --set train.epochs=1"
    assert found[1]["command"] == command and command in Path("docs/results.md").read_text()
    assert all(Path(study["file"]).is_file() for study in found)
    told = call("sweep", "bpr-shop", "--seeds", "0", "--set", "train.epochs=1")[1].splitlines()
    assert [line.split()[0] for line in told if line] == ["model.dim", "2", "4", "model.l2", "0.0", "0.5", "wrote"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "bpr-shop.toml"], "bpr-shop.toml names no study; give --key and --values"),
        (["sweep", "ease-market"], "ease-market names no study"),
        (["sweep", "bpr-shop.toml", "--key", "model.dim"], "--key and --values belong together"),
        (["sweep", "bpr-shop.toml", "--key", "model.dims", "--values", "1"], "model.dims"),
        (["sweep", "bpr-shop.toml", "--key", "model.dim", "--values", "2,two"], "two"),
        (
            ["sweep", "bpr-shop.toml", "--key", "model.dim", "--values", "2", "--seeds", "x"],
            "takes whole numbers",
        ),
        (["reproduce", "bpr-shop.toml", "--against", "ease-ml-100k-u1"], "ease-ml-100k-u1 measures something else"),
        (["reproduce", "bpr-shop.toml", "nothing"], "nothing"),
        (["reproduce", "ease-ml-100k-u1", "--ablations"], "ease-ml-100k-u1 names no part that could be left out"),
        (["reproduce", "macgnn-ml-100k-ctr", "--set", "seed=1", "--ablations"], "takes one recipe as it is"),
        (["compare", "runs/a", "runs/b", "runs/c"], "got 3 and no --against"),
        (["compare", "runs/a*", "--against", "runs/b"], "no folder of a run matches 'runs/a*'"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(call, words, message):
    code, out, err = call(*words)
    assert code in (2, 3) and out == "" and call.started == []
    assert message in err and err.count("\n") == 1
