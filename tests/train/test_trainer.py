import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.toys import Solved, Toy, TwoSteps, graph_of, log_of, made, same
from torch import Tensor

from macrorec.api import Model, PairBatch
from macrorec.errors import ConfigError, DataError, ResourceError, UserError
from macrorec.graph.bipartite import build
from macrorec.train import checkpoint, memory, resume, trainer
from macrorec.train.config import TrainConfig
from macrorec.train.progress import reporter
from macrorec.train.sampling import sampler
from macrorec.train.trainer import train

GRAPH = graph_of()
SHORT = TrainConfig(epochs=3, batch_size=64, lr=0.05, threads=1)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
}


class Crash(Exception):
    """Stands for a kill."""


class Scripted:
    """Metrics by validation number, and the weights that were seen."""

    def __init__(self, *values: float, metric: str = "ndcg@10") -> None:
        self.values, self.metric = values, metric
        self.weights: list[Tensor] = []

    def __call__(self, model: Model) -> Mapping[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        self.weights.append(model.users_UD.detach().clone())
        return {self.metric: self.values[len(self.weights) - 1], "other": 0.5}


def by_hand(model: Toy, config: TrainConfig, seed: int, fused: bool = True) -> list[dict[str, float]]:
    """The loop as anybody would write it; returns mean losses per epoch."""
    options = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": fused}
    optimizer = OPTIMIZERS[config.optimizer](model.parameters(), **options)
    batches = sampler(model.batches, GRAPH, config.batch_size, seed=seed)
    means = []
    for epoch in range(config.epochs):
        sums: dict[str, float] = {}
        for batch in batches.epoch(epoch):
            assert isinstance(batch, PairBatch)
            terms = model.losses(batch)
            loss = terms["bpr"] + terms["l2"]
            optimizer.zero_grad()
            loss.backward()
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            sums = {name: sums.get(name, 0.0) + term.item() for name, term in terms.items()}
        means.append({name: total / batches.n_steps for name, total in sums.items()})
    return means


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "lr": 0.5},
        {"optimizer": "adagrad"},
        {"weight_decay": 0.1},
        {"clip_norm": 0.05},
        {"batch_size": 1000},
    ],
    ids=str,
)
def test_equal_to_a_loop_by_hand_to_the_bit(changes: dict[str, Any]) -> None:
    config = replace(SHORT, **changes)
    ours, theirs = made(Toy, GRAPH), made(Toy, GRAPH)
    history = train(ours, GRAPH, config, seed=7)
    means = by_hand(theirs, config, seed=7)
    assert same(ours, theirs) and not same(ours, made(Toy, GRAPH))
    assert [record["losses"] for record in history.epochs] == means
    assert not ours.training and history.best_epoch == 3


def test_several_steps_per_batch_equal_a_loop_by_hand() -> None:
    ours, theirs = made(TwoSteps, GRAPH), made(TwoSteps, GRAPH)
    train(ours, GRAPH, SHORT, seed=7)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=SHORT.lr, fused=True)
    for epoch in range(3):
        for batch in sampler(theirs.batches, GRAPH, 64, seed=7).epoch(epoch):
            optimizer.zero_grad()
            theirs.losses(batch)["bpr"].backward()
            optimizer.step()
            optimizer.zero_grad()
            (0.1 * theirs.items_ID.square().mean()).backward()
            optimizer.step()
    assert same(ours, theirs)


@pytest.mark.parametrize("watched", [False, True])
def test_ends_with_the_mean_of_the_weights_while_steps_go_on_without_it(watched: bool) -> None:
    """With the mean over all steps so far until 1 / (1 - decay) of them, then an exponential one; 5 steps per epoch."""
    seen: list[dict[str, Tensor]] = []

    class Seen(Toy):
        def training_step(self, batch: Any, step: Any) -> dict[str, Tensor]:
            terms = super().training_step(batch, step)
            seen.append({name: weight.detach().clone() for name, weight in self.named_parameters()})
            return terms

    measured: list[float] = []

    def falling(model: Model) -> Mapping[str, float]:
        assert isinstance(model, Toy)
        measured.append(float(model.users_UD.sum()))
        return {"ndcg@10": -len(measured)}

    ours, plain = made(Seen, GRAPH), made(Toy, GRAPH)
    config = replace(SHORT, average=0.75, monitor="ndcg@10" if watched else None)
    history = train(ours, GRAPH, config, seed=7, validate=falling if watched else None)
    assert history.without_times()["epochs"][-1]["losses"] == train(plain, GRAPH, SHORT, seed=7).epochs[-1]["losses"]
    assert len(seen) == 15 and all(torch.equal(seen[-1][n], w.detach()) for n, w in plain.named_parameters())
    means = [{name: weight.double() for name, weight in seen[0].items()}]
    for t, weights in enumerate(seen[1:], 2):
        share = 1 / t if t < 4 else 0.25
        means.append({name: (1 - share) * mean + share * weights[name] for name, mean in means[-1].items()})
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.detach().double(), means[4 if watched else 14][name])
    if watched:
        assert measured == pytest.approx([float(means[t]["users_UD"].sum()) for t in (4, 9, 14)], rel=1e-4)


def test_the_mean_is_refused_where_an_optimiser_of_the_model_lets_rows_lag() -> None:
    class Own(Toy):
        def optimizer(self, kind: str, **settings: Any) -> torch.optim.Optimizer | None:
            return torch.optim.SGD(self.parameters(), lr=settings["lr"])

    with pytest.raises(ConfigError, match="average must be 0 for Own as set"):
        train(made(Own, GRAPH), GRAPH, replace(SHORT, average=0.9), seed=7)


def test_fused_adam_is_adam_up_to_rounding() -> None:
    ours, theirs = made(Toy, GRAPH), made(Toy, GRAPH)
    train(ours, GRAPH, SHORT, seed=7)
    by_hand(theirs, SHORT, seed=7, fused=False)
    torch.testing.assert_close(ours.users_UD, theirs.users_UD, rtol=1e-4, atol=1e-5)


def test_equal_seeds_give_equal_histories_and_other_seeds_others() -> None:
    histories = [train(made(Toy, GRAPH), GRAPH, SHORT, seed=s).without_times() for s in (1, 1, 2)]
    assert histories[0] == histories[1] != histories[2]
    assert set(histories[0]) == {"epochs", "best_epoch"}


def test_history_is_plain_and_counts_time_apart() -> None:
    history = train(made(Toy, GRAPH), GRAPH, SHORT, seed=1, validate=Scripted(0.1, 0.2, 0.3))
    assert json.loads(json.dumps(asdict(history))) == asdict(history)
    assert [record["epoch"] for record in history.epochs] == [1, 2, 3]
    assert all(record["seconds"] > 0 and record["validation_seconds"] > 0 for record in history.epochs)
    assert sum(r["seconds"] + r["validation_seconds"] for r in history.epochs) < history.seconds
    assert history.seconds_per_epoch == sorted(r["seconds"] for r in history.epochs)[1]


@pytest.mark.parametrize(
    ("metric", "values", "patience", "best", "n_epochs"),
    [
        ("ndcg@10", (0.1, 0.3, 0.2, 0.3, 0.1, 0.9), 3, 2, 5),
        ("ndcg@10", (0.1, 0.3, 0.2, 0.4, 0.1, 0.2), 2, 4, 6),
        ("ndcg@10", (0.5, 0.5, 0.5, 0.5, 0.5, 0.5), 1, 1, 2),
        ("ndcg@10", (0.5, 0.4, 0.3, 0.2, 0.1, 0.6), None, 6, 6),
        ("logloss", (0.5, 0.4, 0.45, 0.6, 0.1, 0.1), 2, 2, 4),
    ],
)
@pytest.mark.parametrize("keep", ["best", "last"])
def test_stops_early_and_keeps_the_best(
    metric: str, values: tuple[float, ...], patience: int | None, best: int, n_epochs: int, keep: Any
) -> None:
    config = replace(SHORT, epochs=6, monitor=metric, patience=patience, keep=keep)
    validate, model = Scripted(*values, metric=metric), made(Toy, GRAPH)
    history = train(model, GRAPH, config, seed=1, validate=validate)
    assert (history.best_epoch, len(history.epochs)) == (best, n_epochs)
    assert torch.equal(model.users_UD, validate.weights[best - 1 if keep == "best" else -1])
    assert [record["metrics"][metric] for record in history.epochs] == list(values[:n_epochs])


def test_validates_every_so_many_epochs_and_at_the_end() -> None:
    config = replace(SHORT, epochs=8, validate_every=3, monitor="ndcg@10", patience=2)
    validate = Scripted(0.5, 0.4, 0.3)
    history = train(made(Toy, GRAPH), GRAPH, config, seed=1, validate=validate)
    assert [bool(record["metrics"]) for record in history.epochs] == [e in (3, 6, 8) for e in range(1, 9)]
    assert history.best_epoch == 3


def test_monitor_that_is_not_measured() -> None:
    config = replace(SHORT, monitor="recall@20")
    with pytest.raises(ConfigError, match=r"monitor 'recall@20' is not measured: choose one of ndcg@10, other"):
        train(made(Toy, GRAPH), GRAPH, config, seed=1, validate=Scripted(0.1))
    with pytest.raises(ConfigError, match=r"monitor 'recall@20' needs a validation part"):
        train(made(Toy, GRAPH), GRAPH, config, seed=1)
    with pytest.raises(DataError, match=r"monitor 'ndcg@10' is not a number"):
        train(made(Toy, GRAPH), GRAPH, replace(config, monitor="ndcg@10"), seed=1, validate=Scripted(math.nan))


class Diverging(Toy):
    """Its l2 term is infinite in the eighth step."""

    steps = 0

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        self.steps += 1
        terms = super().losses(batch)
        return terms | {"l2": terms["l2"] / (0.0 if self.steps == 8 else 1.0)}


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    config = replace(SHORT, checkpoint_seconds=0)
    n_steps = sampler(Toy.batches, GRAPH, 64, seed=1).n_steps
    assert n_steps == 5
    with pytest.raises(UserError) as caught:
        train(made(Diverging, GRAPH), GRAPH, config, seed=1, folder=tmp_path)
    assert str(caught.value) == (
        "loss term 'l2' became inf in epoch 2, step 3 of 5: choose a smaller lr (now 0.05), or set clip_norm (now None)"
    )
    model = made(Diverging, GRAPH)
    model.steps = 100
    train(model, GRAPH, config, seed=1, folder=tmp_path)
    plain = made(Toy, GRAPH)
    train(plain, GRAPH, config, seed=1)
    assert same(model, plain), "the checkpoint of the last good step was resumed"


def test_weight_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    class Overflowing(Toy):
        """The gradient overflows, the loss does not."""

        def losses(self, batch: PairBatch) -> dict[str, Tensor]:
            return {"bpr": 1e3 * self.users_UD.sum() + 0 * self.items_ID.sum()}

    config = replace(SHORT, lr=1e38, optimizer="sgd", checkpoint_seconds=0)
    with pytest.raises(UserError, match=r"'users_UD' is no longer finite in epoch 1, step 1 of 5: choose a smaller lr"):
        train(made(Overflowing, GRAPH), GRAPH, config, seed=1, folder=tmp_path)
    assert checkpoint.read(tmp_path) is None


def test_closed_form_is_solved_and_validated_once() -> None:
    model, calls = made(Solved, GRAPH), []
    history = train(
        model, GRAPH, replace(SHORT, monitor="auc"), seed=3, validate=lambda m: calls.append(m) or {"auc": 0.7}
    )
    assert model.calls == len(calls) == len(history.epochs) == 1
    assert history.without_times() == {
        "epochs": [{"epoch": 0, "losses": {}, "metrics": {"auc": 0.7}}],
        "best_epoch": 0,
    }
    again, other = made(Solved, GRAPH), made(Solved, GRAPH)
    train(again, GRAPH, SHORT, seed=3)
    train(other, GRAPH, SHORT, seed=4)
    assert same(model, again) and not same(model, other)


# --- resuming --------------------------------------------------------------------------------------------------------


class Crashing(Toy):
    """Crashes in step ``at`` of this process, after the optimiser has moved."""

    at = -1
    steps = 0
    signals = 0

    def training_step(self, batch: Any, step: Any) -> dict[str, Tensor]:
        terms = super().training_step(batch, step)
        self.steps += 1
        if self.steps == self.at:
            if not self.signals:
                raise Crash
            for _ in range(self.signals):
                os.kill(os.getpid(), signal.SIGINT)
                int("1")  # a bytecode at which Python looks for signals
        return terms


WATCHED = replace(SHORT, monitor="ndcg@10", checkpoint_seconds=0)


def validate(model: Model) -> Mapping[str, float]:
    """A number that rises and falls."""
    assert isinstance(model, Toy)
    return {"ndcg@10": math.sin(1e3 * float(model.users_UD.sum()))}


@pytest.mark.parametrize("changes", [{"optimizer": "adam"}, {"optimizer": "adagrad"}, {"average": 0.7}], ids=str)
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_crash_at_any_step_and_resume_equals_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, changes: dict[str, Any]
) -> None:
    """With a checkpoint per step, and with those at ends of epochs only."""
    monkeypatch.setattr(resume, "_WRITING_SHARE", math.inf)
    config = replace(WATCHED, checkpoint_seconds=seconds, **changes)
    whole = made(Crashing, GRAPH)
    expected = train(whole, GRAPH, config, seed=1, validate=validate).without_times()
    for at in range(1, 16):
        broken = made(Crashing, GRAPH)
        broken.at = at
        folder = tmp_path / str(at)
        with pytest.raises(Crash):
            train(broken, GRAPH, config, seed=1, validate=validate, folder=folder)
        done = at - 1 if seconds == 0 else (at - 1) // 5 * 5
        resumed = made(Crashing, GRAPH, seed=99 if done else 1)
        history = train(resumed, GRAPH, config, seed=1, validate=validate, folder=folder)
        assert same(resumed, whole) and history.without_times() == expected
        assert resumed.steps == 15 - done


@pytest.mark.parametrize("at", [1, 4, 5, 6, 15])
def test_ctrl_c_waits_for_the_step_and_saves(tmp_path: Path, at: int) -> None:
    config = replace(WATCHED, checkpoint_seconds=1e9)
    whole = made(Crashing, GRAPH)
    expected = train(whole, GRAPH, config, seed=1, validate=validate).without_times()
    broken = made(Crashing, GRAPH)
    broken.at, broken.signals = at, 1
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(broken, GRAPH, config, seed=1, validate=validate, folder=tmp_path)
    assert broken.steps == at and signal.getsignal(signal.SIGINT) is before
    resumed = made(Crashing, GRAPH, seed=99)
    history = train(resumed, GRAPH, config, seed=1, validate=validate, folder=tmp_path)
    assert resumed.steps == 15 - at and same(resumed, whole) and history.without_times() == expected


def test_second_ctrl_c_does_not_wait_and_does_not_save(tmp_path: Path) -> None:
    broken = made(Crashing, GRAPH)
    broken.at, broken.signals = 3, 2
    with pytest.raises(KeyboardInterrupt):
        train(broken, GRAPH, replace(SHORT, checkpoint_seconds=1e9), seed=1, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_ctrl_c_in_validation_saves(tmp_path: Path, number: int) -> None:
    calls: list[int] = []

    def interrupted(model: Model) -> Mapping[str, float]:
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return validate(model)

    whole, broken, resumed = made(Crashing, GRAPH), made(Crashing, GRAPH), made(Crashing, GRAPH, seed=99)
    expected = train(whole, GRAPH, WATCHED, seed=1, validate=validate).without_times()
    with pytest.raises(KeyboardInterrupt):
        train(broken, GRAPH, WATCHED, seed=1, validate=interrupted, folder=tmp_path)
    history = train(resumed, GRAPH, WATCHED, seed=1, validate=validate, folder=tmp_path)
    assert resumed.steps == 15 - 5 * number and same(resumed, whole) and history.without_times() == expected


def test_finished_training_is_answered_from_its_checkpoint(tmp_path: Path) -> None:
    config = replace(WATCHED, epochs=6, patience=1)
    first, second = made(Crashing, GRAPH), made(Crashing, GRAPH, seed=99)
    history = train(first, GRAPH, config, seed=1, validate=validate, folder=tmp_path)
    again = train(second, GRAPH, config, seed=1, validate=validate, folder=tmp_path)
    assert second.steps == 0 and same(first, second) and again.epochs == history.epochs


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"config": replace(SHORT, lr=0.1)}, "train.lr was 0.05, is 0.1"),
        (
            {"config": replace(SHORT, epochs=9, batch_size=32)},
            "train.batch_size was 64, is 32; train.epochs was 3, is 9",
        ),
        ({"seed": 2}, "seed was 1, is 2"),
        ({"graph": graph_of(seed=1)}, "other train data"),
        ({"graph": build(log_of(GRAPH.target.user_E, GRAPH.target.item_E, 40, 30))}, "other train data"),
        ({"kind": TwoSteps}, "model.name was 'Toy', is 'TwoSteps'"),
        ({"dim": 5}, "model.dim was 4, is 5"),
    ],
    ids=str,
)
def test_checkpoint_of_another_training_is_refused(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    train(made(Toy, GRAPH), GRAPH, SHORT, seed=1, folder=tmp_path)
    graph = change.get("graph", GRAPH)
    model = made(change.get("kind", Toy), graph, dim=change.get("dim", 4))
    with pytest.raises(DataError) as caught:
        train(model, graph, change.get("config", SHORT), seed=change.get("seed", 1), folder=tmp_path)
    assert f"belongs to another training ({line})" in str(caught.value) and "\n" not in str(caught.value)


def test_threads_and_checkpoint_seconds_may_change(tmp_path: Path) -> None:
    train(made(Toy, GRAPH), GRAPH, SHORT, seed=1, folder=tmp_path)
    train(made(Toy, GRAPH), GRAPH, replace(SHORT, threads=None, checkpoint_seconds=5), seed=1, folder=tmp_path)


# --- the process -----------------------------------------------------------------------------------------------------


def test_too_little_memory_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(Crashing, GRAPH)
    monkeypatch.setattr(Toy, "memory", classmethod(lambda cls, config, graph: 3 << 30))
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2 << 30)
    line = r"training Crashing needs about 3.0 GiB of memory, and 2.0 GiB are available: choose a smaller"
    with pytest.raises(ResourceError, match=line):
        train(model, GRAPH, SHORT, seed=1)
    assert model.steps == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_deterministic_kernels_on_its_own_threads(threads: int) -> None:
    seen: list[tuple[int, bool]] = []

    class Looking(Toy):
        def losses(self, batch: PairBatch) -> dict[str, Tensor]:
            seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
            assert self.training
            return super().losses(batch)

    config = replace(SHORT, threads=threads)
    train(made(Looking, GRAPH), GRAPH, config, seed=1, validate=Scripted(0.1, 0.2, 0.3))
    assert set(seen) == {(threads, True)} and not torch.are_deterministic_algorithms_enabled()


def test_nothing_goes_to_standard_output(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train(made(Toy, GRAPH), GRAPH, SHORT, seed=1, progress=reporter(), folder=tmp_path)
    out, err = capfd.readouterr()
    assert out == "" and [line.split(":")[0] for line in err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    train(made(Toy, GRAPH), GRAPH, SHORT, seed=1)
    assert capfd.readouterr() == ("", "")


def test_progress_counts_every_step_and_is_closed_on_failure() -> None:
    class Told:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def start(self, n_epochs: int, n_steps: int, done: int = 0) -> None:
            self.calls.append(("start", n_epochs, n_steps, done))

        def step(self, epoch: int, step: int, loss: float) -> None:
            assert math.isfinite(loss)
            self.calls.append((epoch, step))

        def epoch(self, record: Mapping[str, Any]) -> None:
            self.calls.append(record["epoch"])

        def close(self) -> None:
            self.calls.append("close")

    told = Told()
    train(made(Toy, GRAPH), GRAPH, replace(SHORT, epochs=2), seed=1, progress=told)
    steps = [[*((e, s) for s in range(1, 6)), e] for e in (1, 2)]
    assert told.calls == [("start", 2, 5, 0), *steps[0], *steps[1], "close"]
    broken, told = made(Crashing, GRAPH), Told()
    broken.at = 2
    with pytest.raises(Crash):
        train(broken, GRAPH, SHORT, seed=1, progress=told)
    assert told.calls[-1] == "close"


def test_losses_read_rarely_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the history and the error's step do not depend on how often losses are looked at."""
    expected = train(made(Toy, GRAPH), GRAPH, SHORT, seed=1).without_times()
    monkeypatch.setattr(trainer, "_STEPS_BETWEEN_LOOKS", {"cpu": 3})
    assert train(made(Toy, GRAPH), GRAPH, SHORT, seed=1).without_times() == expected
    with pytest.raises(UserError, match="'l2' became inf in epoch 2, step 3 of 5"):
        train(made(Diverging, GRAPH), GRAPH, SHORT, seed=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_trains_on_a_gpu_like_on_the_cpu() -> None:
    class Steady(Toy):
        def losses(self, batch: PairBatch) -> dict[str, Tensor]:
            users_BD, items_BD = self.users_UD[batch.users_B], self.items_ID[batch.items_B]
            negatives_BND = self.items_ID[batch.negatives_BN]
            score_BN = (users_BD[:, None] * (negatives_BND - items_BD[:, None])).sum(-1)
            return {"bpr": torch.nn.functional.softplus(score_BN).mean()}

    here, there = made(Steady, GRAPH), made(Steady, GRAPH)
    a = train(here, GRAPH, SHORT, seed=1)
    b = train(there, GRAPH, SHORT, seed=1, device="cuda")
    torch.testing.assert_close(here.users_UD, there.users_UD.cpu(), rtol=1e-3, atol=1e-4)
    assert a.epochs[-1]["losses"]["bpr"] == pytest.approx(b.epochs[-1]["losses"]["bpr"], rel=1e-4)
