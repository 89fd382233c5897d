"""Three ways to count, from the command line: on a log where most purchases were viewed before."""

import json
from pathlib import Path

import pytest
from tests.small_runs import write_funnel, write_log

from macrorec.cli import results, status
from macrorec.store import Run

WAYS = ["hr@3", "hr@3:re-engagement", "hr@3:discovery"]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_funnel(tmp_path / "data")
    for name in ("ease", "popular", "bpr"):
        write_toml(Path(f"{name}.toml"), name)

    def run(*arguments):
        code = status(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    monkeypatch.setattr(results, "alone", lambda *arguments: run(*arguments, "--quiet")[0])
    return run


def write_toml(path, model, monitor="hr@3:discovery"):
    path.write_text(
        f"""
        refit = true
        model.name = "{model}"
        train = {{ epochs = 3, batch_size = 64, monitor = "{monitor}", patience = 2 }}
        eval.metrics = ["hr@3", "ndcg@3", "recall@5"]
        [source]
        path = "data/funnel.csv"
        behaviors = [{{ name = "view", role = "auxiliary", mask = false }}, {{ name = "buy" }}]
        [split]
        vocabulary = "all"
        test.kind = "leave-last-one"
        valid.kind = "leave-last-one"
        """
    )


def test_a_run_keeps_and_shows_three_ways(call):
    code, out, _ = call("run", "bpr.toml")
    assert code == 0
    heads = ["metric", "valid", "re-engagement", "discovery", "test", "re-engagement", "discovery"]
    assert out.splitlines()[0].split() == heads and max(map(len, out.splitlines()[:4])) < 80
    assert "users of re-engagement 20, users of discovery 10" in out
    run = Run.open(next(Path("runs").iterdir()))
    for part in ("valid", "test"):
        assert [name for name in run.metrics[part] if name.startswith("hr@3")] == WAYS
        frame = run.per_user(part)
        assert frame["hr@3:re-engagement"].null_count() == 30 - 20
        assert frame["hr@3:discovery"].mean() == run.metrics[part]["hr@3:discovery"]
    assert run.provenance["counts"]["users:discovery"] == 10
    watched = [epoch["metrics"]["hr@3:discovery"] for epoch in run.history["fit"]["epochs"]]
    assert run.history["fit"]["best_epoch"] == 1 + watched.index(max(watched))


def test_a_run_is_measured_again_under_another_mask_and_stays_as_it_is(call):
    folder = json.loads(call("run", "ease.toml", "--json")[1])["run"]
    before = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    own = json.loads(call("evaluate", folder, "--json")[1])
    assert own["metrics"] == Run.open(folder).metrics["test"]
    code, out, _ = call("evaluate", folder, "--mask", "every", "--json")
    every = json.loads(out)
    assert code == 0 and every["mask"] == "items of a user's view, buy in train are masked"
    assert (every["counts"]["unreachable"], own["counts"]["unreachable"]) == (20, 0)
    assert every["metrics"]["hr@3:re-engagement"] == 0 < own["metrics"]["hr@3:re-engagement"]
    lines = call("evaluate", folder, "--mask", "none", "--metrics", "ndcg@3")[1].splitlines()
    assert lines[0].split() == ["metric", "test", "re-engagement", "discovery"] and "nothing is masked" in lines[-1]
    code, out, _ = call("evaluate", folder, "--metrics", "HR@1:discovery")
    assert code == 0 and out.splitlines()[0].split() == ["metric", "discovery"]
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == before


def test_runs_are_tuned_compared_and_reproduced_by_cohort(call):
    Path("space.toml").write_text('"model.l2" = [1.0, 100.0]')
    words = ("--space", "space.toml", "--trials", "2", "--metric", "hr@3:re-engagement", "--json")
    found = json.loads(call("tune", "ease.toml", *words)[1])
    assert found["metric"] == "hr@3:re-engagement"
    assert found["best"]["value"] == max(trial["value"] for trial in found["trials"])
    code, out, _ = call("reproduce", "ease.toml", "--seeds", "0,1", "--against", "popular.toml")
    assert code == 0 and out.splitlines()[0].split() == [
        "recipe",
        "seed",
        "metric",
        "test",
        "re-engagement",
        "discovery",
    ]
    kept = json.loads(Path("results/comparisons/ease-against-popular-all.json").read_text())
    ways = {row["metric"]: row for row in kept["metrics"]}
    assert [ways[name]["users"] for name in WAYS] == [30, 20, 10]
    assert (ways["hr@3"]["runs_a"], ways["hr@3"]["users_only_a"]) == (1, 0)
    page = Path("docs/results.md").read_text()
    assert "| recipe | hr@3 | re-engagement | discovery | ndcg@3 | re-engagement | discovery |" in page
    assert f"{ways['ndcg@3:discovery']['difference']:+.4f} (" in page
    assert "macrorec reproduce ease.toml --seeds 0,1 --against popular.toml" in page
    code, out, _ = call("compare", "runs/ease-0-*", "--against", "runs/popular-0-*", "--metric", WAYS[2], "--json")
    assert code == 0 and json.loads(out)["metrics"][0]["users"] == 10


def test_what_a_log_cannot_tell_is_one_line(call):
    Path("plain.toml").write_text(
        Path("bpr.toml").read_text().replace("funnel.csv", "log.csv").replace("behaviors", "# behaviors")
    )
    write_log(Path("data"))
    write_toml(Path("other.toml"), "bpr", monitor="ndcg@9:discovery")
    folder = json.loads(call("run", "ease.toml", "--json")[1])["run"]
    for words, message in (
        (
            ["run", "plain.toml"],
            "metric 'hr@3:discovery' has nothing to measure in the part 'valid': the log has no aux",
        ),
        (["run", "other.toml"], "train.monitor is 'ndcg@9:discovery', not among eval.metrics"),
        (["tune", "ease.toml", "--metric", "hr@3:new"], "cannot tune for 'hr@3:new'"),
        (["evaluate", folder, "--mask", "all"], "unknown mask 'all': legal are behaviors, every, none"),
        (["evaluate", folder, "--metrics", "hr@3:old"], "unknown cohort; known are re-engagement, discovery"),
    ):
        code, out, err = call(*words)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1


def test_the_cohorts_are_explained(call):
    answer = json.loads(call("metrics", "--json")[1])
    assert list(answer["cohorts"]) == ["re-engagement", "discovery"]
    out = call("metrics")[1]
    assert all(f":{name}  " in out and says in out for name, says in answer["cohorts"].items())
