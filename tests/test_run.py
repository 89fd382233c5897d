import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tests.small_runs import METRICS, config, write_log

from macrorec import configs, files
from macrorec import run as pipeline
from macrorec.data.split import Nothing
from macrorec.errors import ConfigError, DataError, ResourceError, UserError
from macrorec.eval.evaluate import evaluate
from macrorec.graph.bipartite import from_split
from macrorec.inputs import read_split
from macrorec.restore import config_of, evaluate_run, export, restore, summary
from macrorec.run import RunConfig, known_device, run
from macrorec.store import Bundle, Run
from macrorec.train.trainer import train as real_train


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "data")


def once(settings: RunConfig, root: Path, **named: Any) -> Run:
    return run(settings, name="tiny", root=root, **named)


def test_a_run_leaves_all_files_and_says_where_numbers_come_from(log: Path, tmp_path: Path) -> None:
    settings = config(log, l2=1.0)
    done = once(settings, tmp_path / "runs")
    assert done.name == f"tiny-0-{configs.hash8(configs.plain(settings))}"
    assert sorted(path.name for path in done.folder.iterdir()) == [
        "config.json", "degrees-test.parquet", "degrees-valid.parquet", "history.json", "metrics.json",
        "per_user-test.parquet", "per_user-valid.parquet", "provenance.json", "weights.safetensors",
    ]  # fmt: skip
    assert config_of(done) == settings
    for part in ("valid", "test"):
        means = {name: done.per_user(part)[name].mean() for name in METRICS}
        assert done.metrics[part] == pytest.approx(means)
        assert len(done.per_user(part)) == 30
    origin = done.provenance
    assert origin["data"]["digest"] == read_split(settings.source, settings.prepare, settings.split, seed=0).digest()
    assert [row["step"] for row in origin["data"]["report"]][:2] == ["read", "dedupe"]
    assert origin["mask"] == "items of a user's interaction in train are masked"
    assert origin["counts"]["users"] == 30
    assert {"command", "commit", "versions", "machine", "started", "finished", "peak_rss_bytes"} <= origin.keys()
    answer = summary(done, "tiny")
    assert list(answer) == ["recipe", "seed", "run", "metrics", "seconds", "peak_rss_bytes"]
    assert list(answer["seconds"]) == ["train", "epoch", "evaluate"]
    assert json.loads(json.dumps(answer)) == answer


def test_refit_measures_valid_on_train_and_test_on_train_and_valid(log: Path, tmp_path: Path) -> None:
    """Against the stages by hand."""
    settings = config(log, "userknn")
    done = once(settings, tmp_path)
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    unwatched = pipeline.for_epochs(settings.train, 1)
    first, _ = pipeline.fit(settings, parts, settings=unwatched)
    both = parts.with_valid_in_train()
    second, _ = pipeline.fit(settings, both, settings=unwatched)
    assert done.metrics["valid"] == evaluate(first, parts, "valid", settings.eval).metrics
    assert done.metrics["test"] == evaluate(second, both, "test", settings.eval).metrics
    assert all(torch.equal(value, done.weights()[name]) for name, value in second.state_dict().items())
    plain = once(replace(settings, refit=False), tmp_path)
    assert plain.metrics["test"] == evaluate(first, parts, "test", settings.eval).metrics
    assert plain.metrics["valid"] == done.metrics["valid"]
    assert plain.provenance["mask"] == "items of a user's interaction in train and valid are masked"


def test_refit_takes_the_epochs_that_valid_chose(log: Path, tmp_path: Path) -> None:
    settings = config(log, "bpr", dim=4)
    done = once(settings, tmp_path)
    chosen = done.history["fit"]["best_epoch"]
    assert 1 <= chosen <= 4
    assert len(done.history["refit"]["epochs"]) == chosen
    assert all(not epoch["metrics"] for epoch in done.history["refit"]["epochs"])
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0).with_valid_in_train()
    by_hand, _ = pipeline.fit(settings, parts, settings=pipeline.for_epochs(settings.train, chosen))
    assert all(torch.equal(value, done.weights()[name]) for name, value in by_hand.state_dict().items())


def test_test_is_read_once_at_the_end(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def spy(model: Any, parts: Any, part: str, *rest: Any, **named: Any) -> Any:
        measured.append(part)
        return evaluate(model, parts, part, *rest, **named)  # type: ignore[arg-type]

    def blind(model: Any, graph: Any, *rest: Any, validate: Any = None, **named: Any) -> Any:
        assert graph.n_users == 30
        assert int(graph.target.start_U[-1]) in (7 * 30, 8 * 30)
        return real_train(model, graph, *rest, validate=validate, **named)

    monkeypatch.setattr(pipeline, "evaluate", spy)
    monkeypatch.setattr(pipeline, "train", blind)
    once(config(log, "bpr", dim=4), tmp_path)
    assert measured == ["valid", "test"]


def test_a_finished_run_is_answered_from_its_folder(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(log)
    done = once(settings, tmp_path)
    before = (done.folder / "provenance.json").read_bytes()
    monkeypatch.setattr(pipeline, "read_split", lambda *a, **k: pytest.fail("read again"))
    assert once(settings, tmp_path).metrics == done.metrics
    monkeypatch.undo()
    once(settings, tmp_path, force=True)
    assert (done.folder / "provenance.json").read_bytes() != before


def test_equal_seeds_give_equal_runs_and_others_another_folder(log: Path, tmp_path: Path) -> None:
    settings = config(log, "bpr", dim=4)
    a, b = once(settings, tmp_path / "a"), once(settings, tmp_path / "b")
    assert a.name == b.name and a.metrics == b.metrics
    assert all(torch.equal(value, b.weights()[name]) for name, value in a.weights().items())
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    first, same, another = (pipeline.build(replace(settings, seed=n), from_split(parts)) for n in (0, 0, 1))
    assert torch.equal(first.users_UD, same.users_UD) and not torch.equal(first.users_UD, another.users_UD)
    other = once(replace(settings, seed=1), tmp_path / "a")
    assert other.name != a.name
    assert not torch.equal(other.weights()["users_UD"], a.weights()["users_UD"])


@pytest.mark.parametrize("broken_in", ["fit", "refit"])
def test_ctrl_c_keeps_the_checkpoint_and_the_run_goes_on_as_if_nothing_happened(
    broken_in: str, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(log, "bpr", dim=4)
    settings = replace(settings, train=replace(settings.train, patience=None))
    whole = once(settings, tmp_path / "whole")
    began: list[str] = []

    class Impatient:
        """Presses Ctrl-C in the second epoch of a stage."""

        def start(self, n_epochs: int, n_steps: int, done: int = 0) -> None:
            began.append("refit" if began else "fit")

        def step(self, epoch: int, step: int, loss: float) -> None:
            if epoch == 2 and began[-1] == broken_in:
                raise KeyboardInterrupt

        def epoch(self, record: Any) -> None: ...
        def close(self) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        once(settings, tmp_path / "broken", progress=Impatient())
    folder = tmp_path / "broken" / whole.name
    assert not Run(folder).finished
    assert (folder / "checkpoints" / broken_in / "checkpoint.safetensors").is_file()
    assert (folder / "fit.json").exists() == (broken_in == "refit")
    fitted: list[int] = []

    def counted(*arguments: Any, **named: Any) -> Any:
        fitted.append(1)
        return fit(*arguments, **named)

    fit = pipeline.fit
    monkeypatch.setattr(pipeline, "fit", counted)
    again = once(settings, tmp_path / "broken")
    assert len(fitted) == (1 if broken_in == "refit" else 2)
    assert again.metrics == whole.metrics
    assert all(torch.equal(value, again.weights()[name]) for name, value in whole.weights().items())
    assert "resumed" in again.provenance
    assert not (folder / "checkpoints").exists() and not (folder / "fit.json").exists()


def test_a_full_disk_leaves_no_finished_run(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.flush

    def full(path: Path) -> None:
        if "weights" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(files, "flush", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        once(config(log), tmp_path)
    folder = next(tmp_path.glob("tiny-*"))
    assert not Run(folder).finished
    assert not list(folder.glob("*weights*")) and not list(folder.glob(".*weights*"))
    monkeypatch.undo()
    assert once(config(log), tmp_path).finished


def test_a_folder_that_cannot_be_written_is_one_line(log: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        once(config(log), tmp_path / "runs")


def test_data_that_changed_are_refused(log: Path, tmp_path: Path) -> None:
    done = once(config(log), tmp_path)
    write_log(log.parent, n_users=31)
    with pytest.raises(DataError, match="have changed since it began"):
        restore(done)
    (done.folder / "metrics.json").unlink()
    with pytest.raises(DataError, match="--force runs it anew"):
        once(config(log), tmp_path)
    assert once(config(log), tmp_path, force=True).finished


def test_a_model_that_would_not_fit_is_refused_before_it_is_built(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.memory, "available_bytes", lambda device="cpu": 1000)
    monkeypatch.setattr(pipeline.models.load("ease"), "from_graph", lambda *a: pytest.fail("built"))
    with pytest.raises(ResourceError, match="ease on 30 users x 20 items needs about"):
        once(config(log), tmp_path)


def test_without_valid_there_is_one_stage_and_nothing_to_watch(log: Path, tmp_path: Path) -> None:
    settings = config(log, "bpr", valid=False, dim=4)
    done = once(settings, tmp_path)
    assert list(done.history) == ["fit"] and len(done.history["fit"]["epochs"]) == 4
    assert done.metrics["valid"] == {} and done.metrics["test"].keys() == set(METRICS)
    watching = replace(settings, train=replace(settings.train, monitor="ndcg@3"))
    with pytest.raises(ConfigError, match="needs a validation part"):
        once(watching, tmp_path)
    untested = replace(settings, split=replace(settings.split, test=Nothing()))
    assert once(untested, tmp_path).metrics == {"valid": {}, "test": {}}


def test_evaluate_again_gives_the_same_and_other_metrics(log: Path, tmp_path: Path) -> None:
    done = once(config(log), tmp_path)
    assert evaluate_run(done).metrics == done.metrics["test"]
    assert evaluate_run(done, "test", ("HR@5", "map@3")).metrics.keys() == {"hr@5", "map@3"}
    with pytest.raises(DataError, match="have learned from valid"):
        evaluate_run(done, "valid")
    with pytest.raises(ConfigError, match="unknown part 'train'"):
        evaluate_run(done, "train")
    fitted = once(config(log, refit=False), tmp_path)
    assert evaluate_run(fitted, "valid").metrics == fitted.metrics["valid"]


@pytest.mark.parametrize("model", ["ease", "lightgcn"])
def test_a_bundle_of_a_run_scores_as_the_run(model: str, log: Path, tmp_path: Path) -> None:
    done = once(config(log, model), tmp_path / "runs")
    bundle = Bundle.load(export(done, tmp_path / "bundle"))
    found = restore(done)
    with torch.no_grad():
        assert torch.equal(bundle.model.score_all(torch.arange(30)), found.model.score_all(torch.arange(30)))
    assert bundle.config["run"] == done.name and len(bundle.graph.target) == len(found.graph.target) == 8 * 30
    assert bundle.users == found.parts.users and bundle.items == found.parts.items


def test_devices_are_checked() -> None:
    assert known_device("cpu").type == "cpu"
    for name in ("gpu", "cuda:77", "meta", ""):
        with pytest.raises(ConfigError, match="device"):
            known_device(name)


def test_per_user_results_keep_external_ids(log: Path, tmp_path: Path) -> None:
    done = once(config(log), tmp_path)
    assert done.per_user("test")["user_id"].dtype == pl.String
    assert set(done.per_user("test")["user_id"]) == {f"u{n}" for n in range(30)}


def test_two_do_not_work_in_one_folder(log: Path, tmp_path: Path) -> None:
    done = once(config(log), tmp_path)
    with done.held():
        assert once(config(log), tmp_path).metrics == done.metrics
        with pytest.raises(UserError, match=f"another process works in {done.folder}: wait until it ends"):
            once(config(log), tmp_path, force=True)
    assert once(config(log), tmp_path, force=True).metrics == done.metrics


def test_tensorboard_gets_each_stage_under_the_name_of_the_run(log: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = once(config(log, "bpr", dim=4), tmp_path / "runs", tensorboard=tmp_path / "board")
    logged = {}
    for stage in ("fit", "refit"):
        events = EventAccumulator(str(tmp_path / "board" / done.name / stage))
        events.Reload()
        logged[stage] = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    epochs = done.history["fit"]["epochs"]
    assert logged["fit"]["valid/ndcg@3"] == pytest.approx([epoch["metrics"]["ndcg@3"] for epoch in epochs])
    assert logged["refit"]["loss/bpr"] == pytest.approx([e["losses"]["bpr"] for e in done.history["refit"]["epochs"]])
    assert "valid/ndcg@3" not in logged["refit"]
