"""A log of blocks on disk, and runs over it that take a moment."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from macrorec.api import Ranker
from macrorec.data.prepare import PrepareConfig
from macrorec.data.sources.source import Source
from macrorec.data.split import LeaveLastOne, Nothing, SplitConfig, TimeQuantile
from macrorec.eval.ranking import EvalConfig
from macrorec.graph.features import FeatureConfig
from macrorec.graph.groups import ByKMeans
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


def write_ratings(folder: Path, n_users: int = 24, n_items: int = 18, n_events: int = 1200) -> Path:
    """Ratings of 1 or 5, one a minute: users like what is of their colour, red or blue, as the item file tells it.

    The last two users and items appear late; the last item has no category.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["user_id,item_id,rating,timestamp"]
    for t in range(n_events):
        late = t > n_events // 2
        user, item = (7 * t + t * t // 11) % (n_users - 2 * (not late)), (5 * t + t // 5) % (n_items - 2 * (not late))
        liked = (user % 2 == item % 2) != (t % 13 == 0)
        rows.append(f"u{user},i{item},{5 if liked else 1},{1_700_000_000 + 60 * t}")
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    items = ["item_id,genre,title", *(f"i{n},{('red', 'blue')[n % 2]},Item {n}" for n in range(n_items - 1))]
    (folder / "items.csv").write_text("\n".join([*items, f"i{n_items - 1},,"]) + "\n")
    return folder / "ratings.csv"


def clicks(path: Path, model: str = "macgnn", *, refit: bool = False, **settings: Any) -> RunConfig:
    """The ratings of ``write_ratings`` by time: half is history; the last tenth is test, the tenth before valid."""
    ranks = issubclass(load(model), Ranker)
    return RunConfig(
        source=Source(path=str(path), items=str(path.parent / "items.csv"), category="genre", title="title"),
        prepare=PrepareConfig(binary=4.0, dedupe="none"),
        split=SplitConfig(test=TimeQuantile(quantile=0.9), valid=TimeQuantile(quantile=0.89), vocabulary="all"),
        model=load(model).Config(**settings),
        train=TrainConfig(epochs=3, batch_size=64, lr=0.01, monitor="auc" if ranks else None),
        eval=EvalConfig(protocol="ctr", metrics=("auc", "logloss")),
        refit=refit,
        features=FeatureConfig(kind="as_of", history=0.5, users=ByKMeans(n=2)) if ranks else None,
    )


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


def write_funnel(folder: Path, n_users: int = 30, n_items: int = 20) -> Path:
    """The log of ``write_log`` as purchases, viewed a minute before: but for the last one of users 0, 3, 6, ..., and
    the last but one of users 1, 4, 7, ... Every user also views five items that it does not buy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = n_items // 2
    rows = ["user_id,item_id,behavior,timestamp"]
    for user in range(n_users):
        own = [f"u{user},i{(user % 2) * half + (user + 3 * t) % half}" for t in range(9)]
        rows += [
            f"{pair},view,{1_700_000_000 + 60 * t}" for t, pair in enumerate(own) if t != 8 - user % 3 or user % 3 == 2
        ]
        rows += [f"{pair},buy,{1_700_000_060 + 60 * t}" for t, pair in enumerate(own)]
        rows += [f"u{user},i{(1 - user % 2) * half + t},view,{1_700_000_000 + 60 * t}" for t in range(5)]
    path = folder / "funnel.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
