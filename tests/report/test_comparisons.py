import numpy as np
import polars as pl
import pytest

from macrorec.errors import ConfigError, DataError
from macrorec.eval.compare import compare, compare_auc
from macrorec.report.comparisons import compare_runs, runs_at
from macrorec.store import Run


def finished(folder, shift=0.0, seed=0, clicks=True):
    same, own = np.random.default_rng(0), np.random.default_rng(seed)
    folder.mkdir()
    run = Run(folder)
    label = same.integers(0, 2, 200).astype(np.float32)
    frame = {"user_id": same.integers(9, size=200), "item_id": same.integers(9, size=200), "label": label}
    history = {"user_history": same.integers(0, 3, 200), "item_history": same.integers(1, 3, 200)}
    samples = pl.DataFrame(frame | {"logit": shift * label + own.standard_normal(200)} | history)
    if clicks:
        run.write_samples("test", samples)
    users = pl.DataFrame({"user_id": np.arange(9), "logloss": own.random(9), "hr@1": own.random(9)})
    run.write_per_user("test", users)
    run.write("provenance.json", {"data": {"digest": "d"}})
    run.write("metrics.json", {"test": {}})
    return run


@pytest.fixture
def runs(tmp_path):
    return [finished(tmp_path / f"din-shop-{n}-0000000{n}", shift=n / 2, seed=n) for n in range(3)]


def test_groups_are_compared_by_auc_and_by_their_users_means(runs):
    got = compare_runs(runs[:2], runs[2:], resamples=300)
    assert [row["metric"] for row in got["metrics"]] == ["auc", "logloss", "hr@1"]
    frames = [run.samples("test") for run in runs]
    auc = compare_auc(frames[:2], frames[2:], n_bootstrap=300)
    assert got["metrics"][0]["low"] == auc.low and got["metrics"][0]["runs_a"] == 2
    users = [run.per_user("test") for run in runs]
    mean = users[0].with_columns(logloss=(users[0]["logloss"] + users[1]["logloss"]) / 2)
    (loss,) = compare(mean, users[2], ["logloss"], n_bootstrap=300)
    assert got["metrics"][1]["difference"] == pytest.approx(loss.difference, rel=1e-12)
    assert got["first"] == {"name": "din-shop", "runs": ["din-shop-0-00000000", "din-shop-1-00000001"]}
    (warm,) = compare_runs(runs[:2], runs[2:], count="warm", resamples=300)["metrics"]
    assert warm["a"] == compare_auc(frames[:2], frames[2:], count="warm", n_bootstrap=1).a != auc.a


def test_patterns_name_several_runs_once_and_must_name_one(runs, tmp_path):
    found = runs_at([str(tmp_path / "din-*"), str(runs[1].folder)])
    assert [run.name for run in found] == [run.name for run in runs]
    with pytest.raises(DataError, match=r"no folder of a run matches '.*fm-\*'"):
        runs_at([str(tmp_path / "fm-*")])
    with pytest.raises(DataError, match="is no run"):
        runs_at([str(tmp_path / "fm")])


def test_what_a_run_without_impressions_cannot_tell(runs, tmp_path):
    ranked = finished(tmp_path / "ease-shop-0-00000000", clicks=False)
    assert [row["metric"] for row in compare_runs([ranked], runs[:1], resamples=9)["metrics"]] == ["logloss", "hr@1"]
    for settings, message in (
        ({"metrics": ["auc"]}, "ease-shop-0-00000000 keeps no impressions of the part 'test'"),
        ({"count": "warm"}, "only clicks have warm impressions"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare_runs([ranked], runs[:1], **settings)
    with pytest.raises(ConfigError, match="only auc can be compared over warm impressions, not hr@1"):
        compare_runs(runs[:1], runs[1:], metrics=["auc", "hr@1"], count="warm")
