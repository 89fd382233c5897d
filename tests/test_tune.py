import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.small_runs import config, write_log

from macrorec import tune as search
from macrorec.data.split import Nothing
from macrorec.errors import ConfigError, DataError, ResourceError
from macrorec.eval.evaluate import evaluate
from macrorec.inputs import read_split
from macrorec.run import fit, for_epochs, watch
from macrorec.tune import Board, check_space, read_space, tune

L2 = {"model.l2": {"low": 0.1, "high": 1000.0, "log": True}}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "data")


def test_the_best_on_valid_is_refitted_and_tested_once(log: Path, tmp_path: Path) -> None:
    settings = config(log, "userknn")
    space = {"model.k": [1, 2, 5, 20], "model.shrinkage": {"low": 0.0, "high": 5.0}}
    result = tune(settings, space, name="tiny", trials=8, root=tmp_path)
    assert result["budget"] == {"trials": 8, "seconds": None, "seeds": [0]}
    assert result["spent"]["trials"] == len(result["trials"]) == 8
    assert (result["metric"], result["part"]) == ("ndcg@3", "valid")
    assert result["best"]["value"] == max(trial["value"] for trial in result["trials"])
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    for trial in result["trials"]:
        model = replace(settings.model, k=trial["settings"]["model.k"], shrinkage=trial["settings"]["model.shrinkage"])
        by_hand, _ = fit(replace(settings, model=model), parts, settings=for_epochs(settings.train, 1))
        assert trial["value"] == evaluate(by_hand, parts, "valid", settings.eval).metrics["ndcg@3"]
    assert result["run"]["config"]["model"]["k"] == result["best"]["settings"]["model.k"]
    assert result["run"]["config"]["refit"] is True
    assert set(result["run"]["metrics"]["test"]) == {"hr@3", "ndcg@3", "recall@3"}
    assert json.loads(json.dumps(result)) == result


def test_a_trial_is_the_mean_over_the_seeds_that_are_asked_for(log: Path, tmp_path: Path) -> None:
    settings = config(log, "bpr")
    space = {"train.lr": [0.01, 0.1]}
    result = tune(settings, space, name="tiny", trials=3, seeds=(0, 4), root=tmp_path)
    assert result["budget"]["seeds"] == [0, 4]
    for trial in result["trials"]:
        by_hand = []
        for seed in (0, 4):
            own = replace(settings, seed=seed, train=replace(settings.train, lr=trial["settings"]["train.lr"]))
            parts = read_split(own.source, own.prepare, own.split, seed=seed)
            model, _ = fit(own, parts, validate=watch(own, parts, "cpu"))
            by_hand.append(evaluate(model, parts, "valid", own.eval).metrics["ndcg@3"])
        assert trial["values"] == by_hand and trial["value"] == sum(by_hand) / 2
        assert by_hand[0] != by_hand[1], "the seeds are one"
    assert result["best"]["value"] == max(trial["value"] for trial in result["trials"])


def test_choices_may_be_lists(log: Path, tmp_path: Path) -> None:
    settings = config(log, "retarget")
    space = {"model.behaviors": [["nothing"], []], "model.a": [0.5, 1.0]}
    result = tune(settings, space, name="tiny", trials=4, root=tmp_path)
    first, *others = (trial["settings"]["model.behaviors"] for trial in result["trials"])
    assert first == [], "the first trial is the configuration itself"
    assert ["nothing"] in others
    wrong = [trial for trial in result["trials"] if trial["settings"]["model.behaviors"]]
    assert all("'nothing' is no auxiliary behaviour" in trial["failed"] for trial in wrong)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_of_a_search_are_different_numbers(log: Path, tmp_path: Path, seeds: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="different numbers"):
        tune(config(log), L2, name="tiny", trials=1, seeds=seeds, root=tmp_path)


def test_equal_seeds_search_alike(log: Path, tmp_path: Path) -> None:
    a, b = (tune(config(log), L2, name="tiny", trials=5, root=tmp_path / n)["trials"] for n in "ab")
    assert [trial["settings"] for trial in a] == [trial["settings"] for trial in b]
    other = tune(replace(config(log), seed=1), L2, name="tiny", trials=5, root=tmp_path)["trials"]
    assert [trial["settings"] for trial in a] != [trial["settings"] for trial in other]


def stopped(monkeypatch: pytest.MonkeyPatch, after: int) -> list[Any]:
    """From now on trials stand in the list, and the one after ``after`` is stopped as by Ctrl-C."""
    played: list[Any] = []
    play = Board.play

    def counted(board: Board, candidate: Any, *rest: Any, **named: Any) -> Any:
        if len(played) == after:
            raise KeyboardInterrupt
        played.append(candidate)
        return play(board, candidate, *rest, **named)

    monkeypatch.setattr(Board, "play", counted)
    return played


def without_times(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in result["trials"]]


def test_a_search_that_was_stopped_goes_on_where_it_was(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(config(log), L2, name="tiny", trials=6, root=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stopped(patch, after=4)
        with pytest.raises(KeyboardInterrupt):
            tune(config(log), L2, name="tiny", trials=6, root=tmp_path)
    (journal,) = tmp_path.glob("search-tiny-*.jsonl")
    journal.write_text(journal.read_text()[:-9])  # the fourth is torn
    said: list[str] = []
    with monkeypatch.context() as patch:
        played = stopped(patch, after=100)
        again = tune(config(log), L2, name="tiny", trials=6, root=tmp_path, note=said.append)
    assert said[0] == f"3 trials of this search are on record in {journal}; it goes on from there"
    assert len(played) == 3 and without_times(again) == without_times(whole)
    assert again["spent"]["seconds"] >= round(sum(trial["seconds"] for trial in again["trials"]), 1) - 0.1
    assert not journal.exists(), "what has ended is no trial of the next search"


def test_another_search_takes_up_nothing(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stopped(patch, after=2)
        with pytest.raises(KeyboardInterrupt):
            tune(config(log), L2, name="tiny", trials=3, root=tmp_path)
    played = stopped(monkeypatch, after=100)
    tune(config(log, l2=7.0), L2, name="tiny", trials=3, root=tmp_path)
    assert len(played) == 3
    assert len(list(tmp_path.glob("search-tiny-*.jsonl"))) == 1


def test_a_space_is_read_from_toml_or_from_the_result_of_a_search(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text('"model.l2" = {low = 0.1, high = 1000.0, log = true}')
    (tmp_path / "result.json").write_text(json.dumps({"recipe": "tiny", "space": L2}))
    assert read_space(tmp_path / "space.toml") == read_space(tmp_path / "result.json") == L2
    for text in ("{", "[1]", '{"recipe": "tiny"}', '{"space": 3}'):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(ConfigError, match=r"result.json is not the result of a search; a space is a TOML file, or"):
            read_space(tmp_path / "result.json")
    with pytest.raises(ConfigError, match=r"cannot read .*none.json: No such file"):
        read_space(tmp_path / "none.json")


def test_the_first_trial_is_the_recipe_itself(log: Path, tmp_path: Path) -> None:
    result = tune(config(log, l2=3.0), L2, name="tiny", trials=1, root=tmp_path)
    assert result["trials"][0]["settings"] == {"model.l2": 3.0}


def test_no_trial_sees_test(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(candidate: Any, parts: Any, *rest: Any, **named: Any) -> Any:
        assert len(parts.test) == 0 and len(parts.valid) == 30
        return fit(candidate, parts, *rest, **named)

    monkeypatch.setattr(search, "fit", blind)
    tune(config(log), L2, name="tiny", trials=2, root=tmp_path)


def test_seconds_bound_the_search(log: Path, tmp_path: Path) -> None:
    assert tune(config(log), L2, name="tiny", trials=50, seconds=0, root=tmp_path)["spent"]["trials"] == 1


def test_trials_that_do_not_fit_are_on_record(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(candidate: Any, *rest: Any, **named: Any) -> Any:
        if candidate.model.l2 > 5:
            raise ResourceError("too large")
        return fit(candidate, *rest, **named)

    monkeypatch.setattr(search, "fit", scarce)
    result = tune(config(log, l2=1.0), L2, name="tiny", trials=6, root=tmp_path)
    failed = [trial for trial in result["trials"] if trial["value"] is None]
    assert failed and all(trial["failed"] == "too large" and trial["settings"]["model.l2"] > 5 for trial in failed)
    assert result["best"]["settings"]["model.l2"] <= 5
    with pytest.raises(ConfigError, match="no trial of the search succeeded; the last one failed: too large"):
        tune(config(log, l2=9.0), {"model.l2": [9.0]}, name="tiny", trials=1, root=tmp_path)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "nothing to search"),
        ({"model.l3": [1]}, "unknown key 'model.l3' in the space: legal are l2"),
        (
            {"split.vocabulary": ["all"]},
            "only keys of model, train, features.users, features.items, features.recents leave",
        ),
        (
            {"eval.metrics": [["hr@1"]]},
            "only keys of model, train, features.users, features.items, features.recents leave",
        ),
        ({"model.l2": []}, "must be a list of choices or"),
        ({"model.l2": {"low": 1}}, "must be a list of choices or"),
        ({"model.l2": {"low": 2.0, "high": 1.0}}, "needs low < high"),
        ({"model.l2": {"low": 0.0, "high": 1.0, "log": True}}, "low > 0 where log"),
        ({"model.l2": {"low": "a", "high": 1.0}}, "needs low < high"),
    ],
)
def test_a_space_that_does_not_fit_is_one_line(space: dict[str, Any], message: str) -> None:
    from macrorec import configs

    with pytest.raises(ConfigError, match=message):
        check_space(configs.plain(config(Path("log.csv"))), space)


def test_there_must_be_a_valid_part_and_a_measured_metric(log: Path, tmp_path: Path) -> None:
    untuned = config(log, valid=False)
    assert untuned.split.valid == Nothing()
    with pytest.raises(DataError, match="cannot tune without a valid part"):
        tune(untuned, L2, name="tiny", trials=1, root=tmp_path)
    with pytest.raises(ConfigError, match=r"cannot tune for 'map@3': eval.metrics are hr@3, ndcg@3, recall@3"):
        tune(config(log), L2, name="tiny", trials=1, metric="map@3", root=tmp_path)
