import io
from typing import Any

import pytest

from macrorec.train import progress
from macrorec.train.progress import Lines, TerminalBar, describe, reporter

RECORD: dict[str, Any] = {
    "epoch": 1,
    "losses": {"bpr": 0.5, "l2": 0.25},
    "metrics": {"ndcg@10": 0.1234},
    "seconds": 2.04,
    "validation_seconds": 1.0,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_lines_elsewhere_nothing_if_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    assert isinstance(reporter(stream=Terminal()), TerminalBar)
    assert isinstance(reporter(stream=io.StringIO()), Lines)
    assert reporter(quiet=True, stream=Terminal()) is None
    told = reporter()
    assert told is not None
    told.epoch(RECORD)
    assert capfd.readouterr().out == ""


def test_describe() -> None:
    assert describe(RECORD) == "loss 0.75 (bpr 0.5, l2 0.25), ndcg@10 0.1234"
    assert describe(RECORD | {"losses": {"bpr": 0.5}, "metrics": {}}) == "loss 0.5"


def test_a_line_per_epoch_and_one_every_so_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    told = Lines(stream, every=10.0)
    told.start(2, 100, done=0)
    for step in range(1, 101):
        now += 0.25
        told.step(1, step, 0.5)
    told.epoch(RECORD)
    told.close()
    assert stream.getvalue().splitlines() == [
        "epoch 1/2, step 40/100: loss 0.5",
        "epoch 1/2, step 80/100: loss 0.5",
        "epoch 1/2: loss 0.75 (bpr 0.5, l2 0.25), ndcg@10 0.1234, 2.0 s",
    ]


def test_resuming_is_told() -> None:
    stream = io.StringIO()
    Lines(stream, every=10.0).start(5, 100, done=230)
    assert stream.getvalue() == "resuming after epoch 2 and 30 of 100 steps\n"


def test_the_bar_shows_epoch_step_loss_and_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    told = TerminalBar(stream)
    told.start(4, 10)
    told.step(1, 5, 0.625)
    assert told.bar.tasks[0].completed == 5
    told.step(1, 6, 0.5)
    assert told.bar.tasks[0].completed == 5, "drawn at most ten times a second"
    told.epoch(RECORD)
    assert told.bar.tasks[0].completed == 10
    told.drawn = 0.0
    told.step(2, 1, 0.4)
    told.close()
    text = stream.getvalue()
    assert "epoch 2/4 step 1/10" in text and "loss 0.4, ndcg@10 0.1234" in text


def test_the_bar_resumes_where_it_was() -> None:
    told = TerminalBar(Terminal())
    told.start(4, 10, done=25)
    told.close()
    assert told.bar.tasks[0].completed == 25
