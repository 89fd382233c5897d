import errno
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from macrorec import store
from macrorec.errors import DataError, UserError
from macrorec.store import Run


def test_a_run_is_finished_when_its_metrics_are_there(tmp_path: Path) -> None:
    run = Run(tmp_path / "ease-0-12345678")
    run.folder.mkdir()
    with pytest.raises(DataError, match=r"is no run \(metrics.json is missing\)"):
        Run.open(run.folder)
    run.write("config.json", {"seed": 3})
    with pytest.raises(DataError, match="is interrupted: run it again to finish it"):
        Run.open(run.folder)
    (run.folder / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="is a bundle; asked for is the folder of a run"):
        Run.open(run.folder)
    (run.folder / "manifest.json").unlink()
    (run.stage("fit") / "checkpoint").write_text("")
    run.write("fit.json", {})
    run.finish({"valid": {}, "test": {"ndcg@10": 0.5}})
    opened = Run.open(run.folder)
    assert (opened.name, opened.config, opened.metrics["test"]) == ("ease-0-12345678", {"seed": 3}, {"ndcg@10": 0.5})
    assert sorted(path.name for path in run.folder.iterdir()) == ["config.json", "metrics.json"]


def test_weights_and_per_user_results_come_back(tmp_path: Path) -> None:
    run, frame = Run(tmp_path), pl.DataFrame({"user_id": ["a", "b"], "hr@10": [1.0, 0.0]})
    run.write_weights({"w": torch.eye(3)})
    run.write_per_user("test", frame)
    assert torch.equal(run.weights()["w"], torch.eye(3))
    assert run.per_user("test").equals(frame)
    with pytest.raises(DataError, match="no results for part 'valid'"):
        run.per_user("valid")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"history\.json is missing"):
        _ = Run(tmp_path).history
    (tmp_path / "history.json").write_text("{")
    with pytest.raises(DataError, match=r"history\.json cannot be read"):
        _ = Run(tmp_path).history


def test_bundles_are_at_hand_here() -> None:
    from macrorec.bundle import Bundle

    assert store.Bundle is Bundle


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    run = Run(tmp_path / "ease-0-12345678")
    with run.held():
        with pytest.raises(UserError, match=r"another process works in .*ease-0-12345678"), run.held():
            pytest.fail("held twice")
        with Run(tmp_path / "ease-1-12345678").held():
            pass
    with pytest.raises(KeyError), run.held():
        raise KeyError
    with run.held():
        assert not list(run.folder.iterdir())


def test_a_folder_is_free_after_a_kill(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    hold = "import sys; from pathlib import Path; from macrorec.store import Run\nwith Run(Path(sys.argv[1])).held():"
    hold += " print('held', flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", hold, run.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="another process works in"), run.held():
        pytest.fail("held twice")
    child.kill()
    child.communicate()
    with run.held():
        pass


def test_locks_that_a_file_system_lacks_are_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with Run(tmp_path / "run").held():
        pass
    monkeypatch.setattr(store, "fcntl", None)
    with Run(tmp_path / "run").held():
        pass


def test_clear_leaves_the_folder_and_what_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    Run(tmp_path).clear()
    assert (tmp_path / "thesis.txt").is_file()
    run = Run(tmp_path / "run")
    (run.stage("fit") / "checkpoint").write_text("")
    run.write("config.json", {})
    run.write("metrics.json", {})
    run.clear()
    assert [path.name for path in run.folder.iterdir()] == ["config.json"]
