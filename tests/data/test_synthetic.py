import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.utils.extmath import randomized_svd

from macrorec.data import market as market_module
from macrorec.data.market import DAY, START, events, plant
from macrorec.data.synthetic import MarketConfig, read_truth, write_market
from macrorec.data.vocab import Vocab
from macrorec.errors import ConfigError, DataError, ResourceError, UserError

FILES = ("items.parquet", "log.parquet", "market.json", "truth/affinity.parquet", "truth/items.parquet")
FILES = (*FILES, "truth/users.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default market, seed 0."""
    folder = tmp_path_factory.mktemp("market") / "m"
    write_market(MarketConfig(), folder, 0)
    return folder


@pytest.fixture(scope="module")
def log(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "log.parquet")


def drawn(config: MarketConfig, seed: int = 0) -> pl.DataFrame:
    """All events of a market as numbers."""
    parts = list(events(plant(config, seed), seed))
    names = ("time", "user", "item", "behavior")
    return pl.DataFrame({name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_columns_and_counts(folder: Path, log: pl.DataFrame) -> None:
    assert tuple(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())) == FILES
    assert log.schema == {"user_id": pl.String, "item_id": pl.String, "behavior": pl.String, "timestamp": pl.Int64}
    summary = json.loads((folder / "market.json").read_text())
    assert summary["config"]["users"] == 1500
    assert summary["seed"] == 0
    counts = summary["counts"]
    assert counts["events"] == len(log) == sum(counts["behaviors"].values())
    assert counts["behaviors"] == {name: (log["behavior"] == name).sum() for name in ("view", "cart", "buy")}
    assert counts["users"] == log["user_id"].n_unique()
    assert counts["items"] == log["item_id"].n_unique()
    assert (counts["first"], counts["last"]) == (log["timestamp"][0], log["timestamp"][-1])
    assert abs(len(log) / 80_000 - 1) < 0.03
    items = pl.read_parquet(folder / "items.parquet")
    assert items.columns == ["item_id", "category_id"]
    assert items["item_id"].to_list() == [f"i{n:06d}" for n in range(800)]
    assert items["category_id"].n_unique() == 32
    assert pl.read_parquet(folder / "truth/users.parquet")["group"].n_unique() == 10
    assert pl.read_parquet(folder / "truth/items.parquet")["cluster"].n_unique() == 16
    shares = pl.read_parquet(folder / "truth/affinity.parquet").group_by("group").agg(pl.col("share").sum())
    np.testing.assert_allclose(shares["share"], 1.0)


def test_log_is_in_order_of_time_within_its_days(log: pl.DataFrame) -> None:
    time = log["timestamp"]
    assert time.is_sorted()
    assert time.min() >= START
    assert time.max() < START + 60 * DAY


def test_same_seed_same_bytes_and_another_seed_another_market(folder: Path, tmp_path: Path) -> None:
    write_market(MarketConfig(), tmp_path / "again", 0)
    assert [digest(folder / name) for name in FILES] == [digest(tmp_path / "again" / name) for name in FILES]
    write_market(MarketConfig(), tmp_path / "other", 1)
    other = [digest(tmp_path / "other" / name) for name in FILES]
    assert all(a != b for a, b in zip([digest(folder / name) for name in FILES], other, strict=True))


@pytest.mark.parametrize("rows_per_group", [1, 999, 10**9])
def test_rows_do_not_depend_on_the_row_groups(tmp_path: Path, rows_per_group: int) -> None:
    config = MarketConfig(users=60, items=40, events=1500, groups=3, clusters=4)
    write_market(config, tmp_path / "a", 3)
    write_market(config, tmp_path / "b", 3, rows_per_group=rows_per_group)
    assert pl.read_parquet(tmp_path / "a/log.parquet").equals(pl.read_parquet(tmp_path / "b/log.parquet"))


def test_large_days_are_drawn_in_bounded_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_module, "VISITS_PER_SLICE", 500)
    config = MarketConfig(days=1, events=20_000)
    parts = list(events(plant(config, 0), 0))
    assert len(parts) == config.slices == -(-config.visits // 500)
    views = [(part.behavior == 0).sum() for part in parts]
    assert max(views) <= 502  # a view on the last second of a part may open the next
    time = np.concatenate([part.time for part in parts])
    assert (np.diff(time) >= 0).all()
    assert sum(views) == config.visits


def test_popularity_is_a_power_law() -> None:
    config = MarketConfig(
        users=2000, items=400, events=300_000, groups=1, clusters=1, drift=0, new_items=0, repeat_rate=0, cart_rate=0
    )
    for exponent in (0.6, 1.2):
        count = np.sort(np.bincount(drawn(replace(config, popularity=exponent))["item"], minlength=400))[::-1]
        rank = np.arange(1, 401)
        slope = np.polyfit(np.log(rank[:200]), np.log(count[:200]), 1)[0]
        assert abs(slope + exponent) < 0.05
    flat = np.bincount(drawn(replace(config, popularity=0.0))["item"], minlength=400)
    assert flat.max() / flat.min() < 1.5


def test_funnel_narrows_at_its_rates_and_in_order(log: pl.DataFrame) -> None:
    counts = {name: (log["behavior"] == name).sum() for name in ("view", "cart", "buy")}
    assert abs(counts["cart"] / counts["view"] - 0.3) < 0.02
    assert abs(counts["buy"] / counts["cart"] - 0.5) < 0.05
    per_pair = log.pivot("behavior", index=["user_id", "item_id"], values="timestamp", aggregate_function="len")
    per_pair = per_pair.fill_null(0)
    assert (per_pair["buy"] <= per_pair["cart"]).all()
    assert (per_pair["cart"] <= per_pair["view"]).all()
    first = log.pivot("behavior", index=["user_id", "item_id"], values="timestamp", aggregate_function="min")
    bought = first.filter(pl.col("buy").is_not_null())
    assert (bought["view"] < bought["cart"]).all()
    assert (bought["cart"] < bought["buy"]).all()


def test_buying_depends_on_affinity_and_on_the_items_conversion(folder: Path, log: pl.DataFrame) -> None:
    truth = log.join(pl.read_parquet(folder / "truth/users.parquet"), on="user_id")
    truth = truth.join(pl.read_parquet(folder / "truth/items.parquet"), on="item_id")
    truth = truth.join(pl.read_parquet(folder / "truth/affinity.parquet"), on=["group", "cluster"])

    def rate(rows: pl.DataFrame, done: str, of: str) -> float:
        return (rows["behavior"] == done).sum() / (rows["behavior"] == of).sum()

    liked, other = truth.filter(pl.col("share") > 0.1), truth.filter(pl.col("share") < 0.1)
    assert rate(liked, "cart", "view") > 4 * rate(other, "cart", "view")
    assert liked.height > 6 * other.height
    low, high = truth.filter(pl.col("conversion") < 0.8), truth.filter(pl.col("conversion") > 1.2)
    assert rate(high, "buy", "cart") > 1.5 * rate(low, "buy", "cart")


def test_users_return_to_what_they_viewed() -> None:
    config = MarketConfig(cart_rate=0, affinity=0, popularity=0, events=40_000)

    def returns(rate: float) -> float:
        views = drawn(replace(config, repeat_rate=rate))
        return 1 - views.select("user", "item").unique().height / views.height

    # Of 27 views per user over 800 items, chance alone returns to about 2 percent.
    assert returns(0.0) < 0.04
    assert 0.3 < returns(0.4) < 0.42


def test_planted_clusters_and_groups_are_recoverable(folder: Path, log: pl.DataFrame) -> None:
    views = log.filter(pl.col("behavior") == "view").select("user_id", "item_id").unique().sort("user_id", "item_id")
    user, item = (views[name].str.slice(1).cast(pl.Int64).to_numpy() for name in ("user_id", "item_id"))
    matrix = sp.csr_matrix((np.ones(len(user)), (user, item)), shape=(1500, 800))
    scale = [sp.diags(1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis)).ravel(), 1))) for axis in (1, 0)]
    left, _, right = randomized_svd(scale[0] @ matrix @ scale[1], 16, random_state=0)
    truth = {
        "cluster": (pl.read_parquet(folder / "truth/items.parquet")["cluster"].to_numpy(), right.T, 16),
        "group": (pl.read_parquet(folder / "truth/users.parquet")["group"].to_numpy(), left, 10),
    }
    for labels, vectors, k in truth.values():
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        found = KMeans(k, n_init=4, random_state=0).fit_predict(vectors)
        assert adjusted_mutual_info_score(labels, found) > 0.6
        shuffled = np.random.default_rng(0).permutation(labels)
        assert abs(adjusted_mutual_info_score(shuffled, found)) < 0.05


def test_without_affinity_groups_behave_alike() -> None:
    config = MarketConfig(affinity=0, groups=2, clusters=4, categories=4, repeat_rate=0, cart_rate=0)
    planted = plant(config, 0)
    rows = drawn(config)
    group, cluster = planted.group_U[rows["user"]], planted.cluster_I[rows["item"]]
    for number in range(2):
        share = np.bincount(cluster[group == number], minlength=4) / (group == number).sum()
        np.testing.assert_allclose(share, 0.25, atol=0.01)


def test_categories_follow_clusters_up_to_noise() -> None:
    config = MarketConfig(items=20_000, category_noise=0.2)
    planted = plant(config, 0)
    at_home = (planted.category_I % config.clusters == planted.cluster_I).mean()
    assert abs(at_home - (0.8 + 0.2 / 16)) < 0.01
    few = plant(replace(config, categories=3, category_noise=0.0), 0)
    np.testing.assert_array_equal(few.category_I, few.cluster_I % 3)


def test_popularity_drifts_and_new_items_appear() -> None:
    def overlap(drift: float) -> float:
        rows = drawn(MarketConfig(events=200_000, items=400, drift=drift, new_items=0.0, repeat_rate=0.0))
        first, last = (
            rows.filter(part) for part in (pl.col("time") < START + 12 * DAY, pl.col("time") >= START + 48 * DAY)
        )
        top = [np.argsort(-np.bincount(part["item"], minlength=400))[:50] for part in (first, last)]
        return len(np.intersect1d(*top)) / 50

    assert overlap(0.0) > 0.85
    assert overlap(2.0) < 0.6

    config = MarketConfig(new_items=0.4)
    release = plant(config, 0).release_I
    rows = drawn(config)
    assert (rows["time"].to_numpy() >= release[rows["item"]]).all()
    assert abs((release > START).mean() - 0.4) < 0.06
    assert release.max() < START + 0.9 * 60 * DAY


def test_days_have_a_rhythm(log: pl.DataFrame) -> None:
    hour = ((log.filter(pl.col("behavior") == "view")["timestamp"] - START) % DAY // 3600).to_numpy()
    count = np.bincount(hour, minlength=24)
    assert count[14:18].sum() > 5 * count[2:6].sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, "market: users must be a whole number from 1 to 2147483647, got 0"),
        ({"users": 10.0}, "market: users must be a whole number from 1 to 2147483647, got 10.0"),
        ({"users": True}, "market: users must be a whole number from 1 to 2147483647, got True"),
        ({"events": -1}, "market: events must be a whole number from 1 to 1000000000000, got -1"),
        ({"groups": 1501}, "market: groups must be a whole number from 1 to 1500, got 1501"),
        ({"clusters": 801}, "market: clusters must be a whole number from 1 to 800, got 801"),
        ({"affinity": 1.5}, "market: affinity must be a number from 0 to 1, got 1.5"),
        ({"drift": float("nan")}, "market: drift must be a number from 0 to 10, got nan"),
        ({"cart_rate": "much"}, "market: cart_rate must be a number from 0 to 1, got 'much'"),
        ({"users": 10**6, "items": 10**6, "groups": 10**4, "clusters": 10**4}, "market: groups x clusters must be at"),
    ],
)
def test_a_bad_config_is_one_clear_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MarketConfig(**change)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="market: seed must be 0 or more, got -1"):
        write_market(MarketConfig(), tmp_path / "m", -1)
    assert not (tmp_path / "m").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="notes"):
        write_market(MarketConfig(events=10), tmp_path / "notes", 0)
    assert [path.name for path in tmp_path.rglob("*")] == ["notes", "diary.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_market_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken(market: object, seed: int) -> object:
        yield next(events(market, seed))  # type: ignore[arg-type]
        raise error

    monkeypatch.setattr("macrorec.data.synthetic.events", broken)
    with pytest.raises((KeyboardInterrupt, ResourceError)):
        write_market(MarketConfig(), tmp_path / "m", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from macrorec.data.synthetic import MarketConfig, read_truth, write_market
from macrorec.data.vocab import Vocab
from macrorec.errors import ResourceError
try:
    write_market(MarketConfig(), {str(tmp_path / "m")!r}, 0)
except ResourceError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {tmp_path / 'm'}: the disk is full")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40)
@given(
    users=st.integers(1, 40),
    items=st.integers(1, 40),
    n_events=st.integers(1, 400),
    groups=st.integers(1, 40),
    clusters=st.integers(1, 40),
    categories=st.integers(1, 60),
    rates=st.tuples(*[st.floats(0, 1) for _ in range(6)]),
    popularity=st.floats(0, 5),
    drift=st.floats(0, 10),
    days=st.integers(1, 30),
    seed=st.integers(0, 2**63),
)
def test_any_legal_market_keeps_the_laws(
    users: int,
    items: int,
    n_events: int,
    groups: int,
    clusters: int,
    categories: int,
    rates: tuple[float, ...],
    popularity: float,
    drift: float,
    days: int,
    seed: int,
) -> None:
    names = ("affinity", "cart_rate", "buy_rate", "repeat_rate", "new_items", "category_noise")
    config = MarketConfig(
        users=users,
        items=items,
        events=n_events,
        groups=min(groups, users),
        clusters=min(clusters, items),
        categories=categories,
        popularity=popularity,
        drift=drift,
        days=days,
        **dict(zip(names, rates, strict=True)),
    )
    planted = plant(config, seed)
    rows = drawn(config, seed)
    assert (rows["behavior"] == 0).sum() == config.visits
    count = np.bincount(rows["behavior"], minlength=3)
    assert count[2] <= count[1] <= count[0]
    assert rows["time"].is_sorted()
    assert START <= rows["time"][0] <= rows["time"][-1] < config.end
    assert 0 <= rows["user"].min() <= rows["user"].max() < users
    assert 0 <= rows["item"].min() <= rows["item"].max() < items
    assert (rows["time"].to_numpy() >= planted.release_I[rows["item"]]).all()
    assert set(planted.group_U) == set(range(config.groups))
    assert set(planted.cluster_I) == set(range(config.clusters))
    assert planted.category_I.min() >= 0
    assert planted.category_I.max() < categories


def test_the_truth_is_read_back_by_number(tmp_path: Path) -> None:
    config = MarketConfig(users=30, items=12, events=500, groups=3, clusters=4)
    write_market(config, tmp_path / "m", 3)
    market = plant(config, 3)
    users, items = Vocab(["u000029", "u000001", "nobody"]), Vocab(["i000005"])
    for folder in (tmp_path / "m", str(tmp_path / "m" / "truth")):
        group_U, cluster_I = read_truth(folder, users, items)
        assert group_U.tolist() == [market.group_U[29], market.group_U[1], -1]
        assert cluster_I.tolist() == [market.cluster_I[5]]
    with pytest.raises(DataError, match=r"users\.parquet cannot be read as the truth of a market, a table of user_id"):
        read_truth(tmp_path, users, items)
