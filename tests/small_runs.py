"""A log of blocks on disk, and runs over it that take a moment."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from macrorec.data.sources.source import Source
from macrorec.data.split import LeaveLastOne, Nothing, SplitConfig
from macrorec.eval.ranking import EvalConfig
from macrorec.models import load
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

METRICS = ("hr@3", "ndcg@3", "recall@3")


def write_log(folder: Path, n_users: int = 30, n_items: int = 20) -> Path:
    """User u took, at time t, item (u + 3 t) mod 20 of its half of the items; nine events each."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "log.csv"
    half = n_items // 2
    rows = ["user_id,item_id,timestamp"]
    for user in range(n_users):
        rows += [f"u{user},i{(user % 2) * half + (user + 3 * t) % half},{1_700_000_000 + 60 * t}" for t in range(9)]
    path.write_text("\n".join(rows) + "\n")
    return path


def config(path: Path, model: str = "ease", *, valid: bool = True, refit: bool = True, **settings: Any) -> RunConfig:
    """Leave the last event of each user out, and the one before for valid."""
    train = TrainConfig(epochs=4, batch_size=64, lr=0.05)
    return RunConfig(
        source=Source(path=str(path)),
        split=SplitConfig(test=LeaveLastOne(), valid=LeaveLastOne() if valid else Nothing(), vocabulary="train+valid"),
        model=load(model).Config(**settings),
        train=replace(train, monitor="ndcg@3", patience=2) if valid else train,
        eval=EvalConfig(metrics=METRICS),
        refit=refit,
    )
