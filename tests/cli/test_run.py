import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.small_runs import write_log

from macrorec import configs
from macrorec.cli import status
from macrorec.store import Bundle, Run

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in a folder with ``tiny.toml`` over a small log; answers code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "data")
    write_toml(tmp_path / "tiny.toml", "ease")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = status(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write_toml(path: Path, model: str, epochs: int = 4) -> None:
    path.write_text(
        f"""
        refit = true
        source.path = "data/log.csv"
        model.name = "{model}"
        train = {{ epochs = {epochs}, batch_size = 64, monitor = "ndcg@3", checkpoint_seconds = 0.05 }}
        eval.metrics = ["hr@3", "ndcg@3"]
        [split]
        vocabulary = "train+valid"
        test.kind = "leave-last-one"
        valid.kind = "leave-last-one"
        """
    )


def test_json_is_one_object_with_the_promised_keys(call: Call) -> None:
    code, out, _ = call("run", "tiny.toml", "--json", "--seed", "3", "--set", "model.l2=2.0")
    answer = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    assert list(answer) == ["recipe", "seed", "run", "metrics", "seconds", "peak_rss_bytes"]
    assert (answer["recipe"], answer["seed"]) == ("tiny", 3)
    assert set(answer["metrics"]) == {"valid", "test"} and set(answer["metrics"]["test"]) == {"hr@3", "ndcg@3"}
    assert set(answer["seconds"]) == {"train", "epoch", "evaluate"}
    assert answer["peak_rss_bytes"] > 10**7
    assert Run.open(answer["run"]).config["model"]["l2"] == 2.0
    assert call("run", "tiny.toml", "--json", "--seed", "3", "--set", "model.l2=2.0")[1] == out


def test_for_a_reader_the_mask_policy_stands_beside_the_numbers(call: Call) -> None:
    code, out, _ = call("run", "tiny.toml")
    assert code == 0
    assert out.splitlines()[0].split() == ["metric", "valid", "test"]
    assert "users 30" in out and "items of a user's interaction in train are masked" in out


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["run", "gfcf-gowala"], 2, "unknown recipe 'gfcf-gowala': did you mean 'gfcf-gowalla'"),
        (["run", "nosuch"], 2, "unknown recipe 'nosuch': 'macrorec recipes' lists the"),
        (["run", "none.toml"], 2, "cannot read none.toml: No such file or directory"),
        (["run", "tiny.toml", "--set", "model.l3=1"], 2, "unknown key 'model.l3': legal are l2, precision"),
        (["run", "tiny.toml", "--set", "model.l2=x"], 2, "model.l2: input should be a valid number; got 'x'"),
        (["run", "tiny.toml", "--set", "source.path=no.csv"], 3, "there is no file 'no.csv'"),
        (["run", "tiny.toml", "--device", "cuda:99"], 2, "device 'cuda:99' is not there"),
        (["run", "tiny.toml", "--root", "tiny.toml"], 1, "cannot write"),
        (["run", "tiny.toml", "--threads", "0"], 2, "--threads"),
        (["evaluate", "data"], 3, "data is no run"),
        (["evaluate", "nowhere"], 3, "nowhere is no run"),
        (["export", "nowhere", "out"], 3, "nowhere is no run"),
        (["compare", "nowhere", "nowhere"], 3, "nowhere is no run"),
        (["tune", "tiny.toml"], 2, "there is nothing to search"),
        (["tune", "tiny.toml", "--space", "none.toml"], 2, "cannot read none.toml"),
        (["results"], 3, "there is no folder 'results'"),
        (["reproduce", "popular-market", "--seeds", "a"], 2, "--seeds takes whole numbers"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(call: Call, arguments: list[str], code: int, line: str) -> None:
    answered, out, err = call(*arguments)
    assert (answered, out) == (code, "")
    assert line in err and err.count("\n") == 1 and err.startswith("error: ")
    assert sorted(path.name for path in Path().iterdir() if path.name != "runs") == ["data", "tiny.toml"]


def test_out_keeps_what_a_table_needs(call: Call) -> None:
    call("run", "tiny.toml", "--out", "results/small/tiny-0.json", "--set", "model.l2=2.0")
    row = json.loads(Path("results/small/tiny-0.json").read_text())
    assert row["command"] == "macrorec run tiny.toml --set model.l2=2.0 --seed 0"
    assert {"recipe", "seed", "metrics", "data", "machine", "versions", "mask", "config"} <= row.keys()
    code, out, _ = call("results", "--json")
    assert code == 0 and json.loads(out) == {"page": "docs/results.md"}
    assert f"{row['metrics']['test']['ndcg@3']:.4f}" in Path("docs/results.md").read_text()


def test_evaluate_export_and_compare(call: Call) -> None:
    first = json.loads(call("run", "tiny.toml", "--json")[1])
    second = json.loads(call("run", "tiny.toml", "--json", "--set", "model.name=popular")[1])
    code, out, _ = call("evaluate", first["run"], "--metrics", "ndcg@3", "--json")
    again = json.loads(out)
    assert code == 0 and again["metrics"] == {"ndcg@3": first["metrics"]["test"]["ndcg@3"]}
    assert "masked" in call("evaluate", first["run"])[1]
    code, out, _ = call("compare", first["run"], second["run"], "--resamples", "200", "--json")
    rows = {row["metric"]: row for row in json.loads(out)["metrics"]}
    assert code == 0 and rows.keys() == {"hr@3", "ndcg@3"}
    both = [run["metrics"]["test"]["ndcg@3"] for run in (first, second)]
    assert rows["ndcg@3"]["difference"] == pytest.approx(both[0] - both[1])
    assert "95 % interval" in call("compare", first["run"], second["run"], "--resamples", "200")[1]
    code, out, _ = call("export", first["run"], "shop", "--json")
    assert code == 0 and "manifest.json" in json.loads(out)["files"]
    assert Bundle.load("shop").config["run"] == Path(first["run"]).name


def test_tune_states_its_budget_on_file(call: Call) -> None:
    Path("space.toml").write_text('"model.l2" = {low = 0.1, high = 100.0, log = true}')
    code, out, err = call("tune", "tiny.toml", "--space", "space.toml", "--trials", "3", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["file"] == "results/tuning/tiny.json"
    kept = json.loads(Path(answer["file"]).read_text())
    assert kept["budget"] == {"trials": 3, "seconds": None, "seeds": [0]} and len(kept["trials"]) == 3
    assert kept["command"] == "macrorec tune tiny.toml --trials 3 --space space.toml --seed 0"
    assert err.count("trial ") == 3
    assert "best ndcg@3 on valid" in call("tune", "tiny.toml", "--space", "space.toml", "--trials", "1")[1]
    _, out, _ = call("tune", "tiny.toml", "--space", "space.toml", "--trials", "1", "--seeds", "3,5", "--json")
    kept = json.loads(Path(json.loads(out)["file"]).read_text())
    assert kept["budget"]["seeds"] == [3, 5] and len(kept["best"]["values"]) == 2
    assert kept["command"] == "macrorec tune tiny.toml --trials 1 --space space.toml --seeds 3,5 --seed 0"
    code, _, err = call("tune", "tiny.toml", "--space", "space.toml", "--seeds", "3,x")
    assert code == 2 and "whole numbers with commas" in err


def test_reproduce_puts_seeds_on_file_and_on_the_page(call: Call) -> None:
    write_toml(Path("bpr.toml"), "bpr")
    code, out, _ = call("reproduce", "bpr.toml", "--seeds", "0,1", "--json")
    assert code == 0 and [row["seed"] for row in json.loads(out)["results"]] == [0, 1]
    assert sorted(path.name for path in Path("results/recipes").iterdir()) == ["bpr-0.json", "bpr-1.json"]
    page = Path("docs/results.md").read_text()
    assert "| bpr |" in page and " ± " in page and "macrorec run bpr.toml --seed 1" in page
    write_toml(Path("bpr.toml"), "bpr", epochs=-1)
    assert call("reproduce", "bpr.toml")[0] == 2


@pytest.mark.parametrize("verb", ["models", "recipes", "metrics", "doctor"])
def test_what_is_here_is_listed(call: Call, verb: str) -> None:
    code, out, _ = call(verb, "--json")
    answer = json.loads(out)
    assert code == 0
    if verb == "models":
        rows = {row["name"]: row for row in answer["models"]}
        assert rows["lightgcn"]["settings"]["n_layers"] == 3 and "LightGCN" in rows["lightgcn"]["says"]
    if verb == "recipes":
        says = {row["name"]: row["says"] for row in answer["recipes"]}
        assert says["ease-market"] == "Ridge regression on the synthetic market." and all(says.values())
    if verb == "metrics":
        assert {"recall@k", "ndcg@k", "ndcg_full@k", "hr@k", "auc", "gauc", "logloss", "auc_roc", "auc_pr"} <= {
            row["name"] for row in answer["metrics"]
        }
        assert all(row["definition"] for row in answer["metrics"])
    if verb == "doctor":
        assert answer["self_test"] == "passed" and answer["recipes"] > 30
    assert call(verb)[0] == 0


def test_recipes_are_listed_by_a_part_of_their_names(call: Call) -> None:
    code, out, _ = call("recipes", "gowalla")
    assert code == 0 and "gfcf-gowalla" in out and "gfcf-yelp" not in out
    code, out, err = call("recipes", "atlantis")
    assert (code, out) == (2, "") and "no recipe has 'atlantis' in its name" in err


def test_a_broken_self_test_is_an_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from macrorec.models import load

    monkeypatch.setattr(load("ease"), "solve", lambda self, graph, generator: None)
    code, out, err = call("doctor")
    assert code == 1 and "of 20 users" in err and "self-test" in out


@pytest.mark.parametrize(  # Ctrl-C reaches the process of reproduce's run by the terminal
    ("verb", "number", "code"),
    [("run", signal.SIGINT, 130), ("run", signal.SIGTERM, 143), ("reproduce", signal.SIGTERM, 143)],
)
def test_ctrl_c_and_sigterm_keep_the_checkpoint(
    call: Call, tmp_path: Path, verb: str, number: signal.Signals, code: int
) -> None:
    write_toml(tmp_path / "long.toml", "bpr", epochs=100_000)
    run = [sys.executable, "-m", "macrorec", verb, "long.toml", "--root", "runs"]
    child = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 60
        while not list(Path("runs").glob("*/checkpoints/fit/checkpoint.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.05)
        if verb == "run":
            assert call("run", "long.toml", "--root", "runs")[::2] == (
                1,
                f"error: another process works in {next(Path('runs').iterdir())}: wait until it ends, "
                "or choose another root\n",
            )
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == code and out == ""
    assert err.splitlines()[-1] == "error: interrupted"
    (folder,) = Path("runs").iterdir()
    assert not Run(folder).finished and (folder / "checkpoints/fit/checkpoint.safetensors").is_file()
    with Run(folder).held():
        pass


def test_the_configuration_of_a_toml_file_is_that_of_the_run(call: Call) -> None:
    from macrorec.run import RunConfig

    answer = json.loads(call("run", "tiny.toml", "--json")[1])
    wanted = configs.parse(RunConfig, configs.read_toml(Path("tiny.toml")))
    assert configs.parse(RunConfig, Run.open(answer["run"]).config) == wanted


def test_a_ranking_is_broken_down_by_train_degree(call: Call) -> None:
    """Every user of the log has seven events in train, and eight after the refit."""
    code, out, _ = call("run", "tiny.toml", "--out", "kept.json", "--json")
    folder = json.loads(out)["run"]
    kept = Run.open(folder).degrees("test")
    assert kept is not None and code == 0
    assert kept.filter(side="user").select("degree", "users", "relevant").rows() == [("5-9", 30, 30)]
    assert kept.filter(side="item")["relevant"].sum() == 30
    assert json.loads(Path("kept.json").read_text())["degrees"] == kept.to_dicts()
    answer = json.loads(call("evaluate", folder, "--json")[1])
    assert answer["degrees"] == kept.to_dicts()
    assert kept["ndcg@3"][0] == pytest.approx(answer["metrics"]["ndcg@3"])
    plain, wide = call("evaluate", folder)[1], call("evaluate", folder, "--breakdown")[1]
    assert wide.startswith(plain.rpartition("; ")[0]) and "degree of" not in plain
    lines = wide.splitlines()
    (head,) = (line for line in lines if line.startswith("degree of the user"))
    assert head.split()[4:] == ["users", "relevant", "hr@3", "ndcg@3"]
    assert lines[lines.index(head) + 1].split()[:3] == ["5-9", "30", "30"]
    assert any(line.startswith("degree of the item") for line in lines)
