import subprocess
import sys
from pathlib import Path

import pytest
from tests.train.toys import Toy, graph_of, made

from macrorec.errors import ConfigError
from macrorec.train import tracking
from macrorec.train.trainer import TrainConfig, train

GRAPH = graph_of()
SHORT = TrainConfig(epochs=2, batch_size=64, lr=0.05, threads=1)


def test_losses_metrics_and_times_are_logged_without_a_warning(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = train(
        made(Toy, GRAPH), GRAPH, SHORT, seed=1, validate=lambda model: {"ndcg@10": 0.5}, tensorboard=tmp_path
    )
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss/bpr", "loss/l2", "valid/ndcg@10", "seconds"}
    points = [(point.step, point.value) for point in found.Scalars("loss/bpr")]
    assert points == [(r["epoch"], pytest.approx(r["losses"]["bpr"])) for r in history.epochs]


def test_missing_tensorboard_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"^TensorBoard is not installed: pip install 'macrorec\[track\]'$"):
        tracking.writer(tmp_path)


def test_tensorboard_is_not_imported_unless_asked() -> None:
    code = "import sys, macrorec.train.trainer; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
