from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.logs import FUNNEL, pairs_of, prepared, raw, rows_of

from macrorec.data.kcore import k_core
from macrorec.data.log import Behavior
from macrorec.data.prepare import PrepareConfig, prepare
from macrorec.errors import ConfigError, DataError

KEEP = PrepareConfig(dedupe="none")


def test_ids_are_numbered_in_sorted_order_over_all_parts() -> None:
    parts = {"train": raw("user item", (10, "b"), (9, "a")), "test": raw("user item", (2, "a"))}
    result = prepare(parts)
    assert result.train.users.ids.to_list() == [2, 9, 10]
    assert result.train.items.ids.to_list() == ["a", "b"]
    assert result.parts["test"].users is result.train.users
    assert rows_of(result.train) == [(9, "a", "interaction"), (10, "b", "interaction")]


def test_csv_text_and_parquet_integers_agree() -> None:
    text = prepared("user item", ("10", "1"), ("9", "2")).train
    numbers = prepared("user item", (9, 2), (10, 1)).train
    assert text.digest() == numbers.digest()


def test_rows_with_times_go_by_time_then_row() -> None:
    log = prepared("user item time", ("u", "c", 5), ("u", "b", 5), ("u", "a", 7), ("u", "d", 1)).train
    assert log.frame()["item_id"].to_list() == ["d", "c", "b", "a"]


def test_arrays_can_be_handed_to_torch_without_a_copy() -> None:
    log = prepared("user item time weight label", ("u", "a", 1, 1.0, 1.0)).train
    for column in (log.user, log.item, log.behavior, log.time, log.weight, log.label):
        assert column is not None and column.flags.writeable


def test_a_row_column_breaks_ties_instead_of_the_frame_order() -> None:
    frame = raw("user item time row", ("u", "c", 5, 9), ("u", "b", 5, 3))
    log = prepare({"train": frame}, (), KEEP).train
    assert log.frame()["item_id"].to_list() == ["b", "c"]


def test_rows_without_times_go_by_content() -> None:
    log = prepared("user item weight", ("v", "a", 1.0), ("u", "b", 2.0), ("u", "b", 1.0)).train
    assert log.frame().rows() == [
        ("u", "b", "interaction", 1.0),
        ("u", "b", "interaction", 2.0),
        ("v", "a", "interaction", 1.0),
    ]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("none", [("u", "a", 3, 1.0), ("u", "a", 5, 2.0), ("u", "a", 5, 4.0), ("v", "a", 4, 8.0)]),
        ("first", [("u", "a", 3, 1.0), ("v", "a", 4, 8.0)]),
        ("last", [("u", "a", 5, 4.0), ("v", "a", 4, 8.0)]),
        ("sum", [("u", "a", 3, 7.0), ("v", "a", 4, 8.0)]),
    ],
)
def test_dedupe_with_times(policy: str, expected: list[object]) -> None:
    rows = [("u", "a", 5, 2.0), ("u", "a", 3, 1.0), ("v", "a", 4, 8.0), ("u", "a", 5, 4.0)]
    log = prepared("user item time weight", *rows, dedupe=policy).train
    assert [(u, i, t, w) for u, i, _, t, w in rows_of(log)] == expected


@pytest.mark.parametrize(("policy", "label"), [("first", 5.0), ("last", 1.0)])
def test_dedupe_without_times_goes_by_row(policy: str, label: float) -> None:
    log = prepared("user item label", ("u", "a", 5.0), ("u", "a", 3.0), ("u", "a", 1.0), dedupe=policy).train
    assert rows_of(log) == [("u", "a", "interaction", label)]


def test_dedupe_sum_counts_events_without_weights_and_keeps_the_first_label() -> None:
    rows = [("u", "a", 5.0), ("v", "a", 2.0), ("u", "a", 3.0)]
    log = prepared("user item label", *rows, dedupe="sum").train
    assert log.frame().select("user_id", "weight", "label").rows() == [("u", 2.0, 5.0), ("v", 1.0, 2.0)]


def test_dedupe_is_per_behaviour_and_per_part() -> None:
    rows = [("u", "a", "view"), ("u", "a", "buy"), ("u", "a", "view")]
    parts = {"train": raw("user item behavior", *rows), "test": raw("user item behavior", *rows)}
    result = prepare(parts, FUNNEL)
    for part in result.parts.values():
        assert rows_of(part) == [("u", "a", "buy"), ("u", "a", "view")]
    assert result.report[-1] == {"step": "dedupe", "rows": 4, "users": 1, "items": 1, "dropped": 2, "note": "first"}


def test_positive_keeps_rows_from_the_threshold_on() -> None:
    result = prepared("user item label", ("u", "a", 4.0), ("u", "b", 3.9), ("v", "b", 5.0), positive=4)
    assert pairs_of(result.train) == [("u", "a"), ("v", "b")]
    step = {"step": "positives", "rows": 2, "users": 2, "items": 2, "dropped": 1, "note": "label >= 4"}
    assert result.report[1] == step


def test_binary_relabels_and_keeps_all_rows() -> None:
    log = prepared("user item label", ("u", "a", 4.0), ("u", "b", 3.9), ("v", "b", 5.0), binary=4).train
    assert log.frame()["label"].to_list() == [1.0, 0.0, 1.0]


def test_ids_without_a_row_left_are_not_in_the_vocabulary() -> None:
    log = prepared("user item label", ("u", "a", 1.0), ("v", "b", 5.0), positive=4).train
    assert log.users.ids.to_list() == ["v"]
    assert log.items.ids.to_list() == ["b"]
    assert log.user.tolist() == [0]


def test_two_core_drops_a_chain_link_by_link() -> None:
    square = [("u1", "i1"), ("u1", "i2"), ("u2", "i1"), ("u2", "i2")]
    chain = [("u2", "i3"), ("u3", "i3"), ("u3", "i4"), ("u4", "i4")]
    result = prepared("user item", *square, *chain, k_core=2)
    assert pairs_of(result.train) == square
    assert result.report[-1]["step"] == "2-core"
    assert result.report[-1]["dropped"] == 4


def test_core_counts_distinct_partners() -> None:
    rows = [("u", "a"), ("u", "a"), ("u", "a")]
    with pytest.raises(DataError, match=r"nothing is left in train after the step '2-core'"):
        prepared("user item", *rows, k_core=2)


def test_core_is_of_the_target_and_restricts_the_other_behaviours() -> None:
    rows = [("u", "a", "buy"), ("u", "a", "view"), ("u", "b", "view"), ("v", "a", "view"), ("v", "b", "view")]
    log = prepared("user item behavior", *rows, behaviors=FUNNEL, k_core=1).train
    assert rows_of(log) == [("u", "a", "buy"), ("u", "a", "view")]


def test_core_leaves_given_parts_alone() -> None:
    parts = {"train": raw("user item", ("u", "a"), ("u", "b"), ("v", "a"), ("v", "b"), ("w", "a"))}
    parts["test"] = raw("user item", ("w", "b"), ("x", "z"))
    result = prepare(parts, (), PrepareConfig(k_core=2))
    assert pairs_of(result.train) == [("u", "a"), ("u", "b"), ("v", "a"), ("v", "b")]
    assert pairs_of(result.parts["test"]) == [("w", "b"), ("x", "z")]


def test_core_of_nothing() -> None:
    none = np.zeros(0, dtype=np.int32)
    keep_user, keep_item = k_core(none, none, 2, 0, 1)
    assert keep_user.tolist() == [False, False]
    assert keep_item.tolist() == []


def test_report_counts_every_step() -> None:
    rows = [("u", "a", "buy"), ("u", "a", "buy"), ("u", "b", "view"), ("v", "b", "view")]
    report = prepared("user item behavior", *rows, behaviors=FUNNEL, dedupe="first", k_core=1).report
    assert [(r["step"], r["rows"], r["users"], r["items"], r["dropped"]) for r in report] == [
        ("read", 4, 2, 2, 0),
        ("dedupe", 3, 2, 2, 1),
        ("1-core", 1, 1, 1, 2),
    ]


# --- behaviours


def test_without_behaviours_every_row_is_an_interaction() -> None:
    log = prepared("user item", ("u", "a")).train
    assert log.behaviors == (Behavior(name="interaction"),)


def test_a_single_name_in_the_log_is_the_target() -> None:
    log = prepared("user item behavior", ("u", "a", "buy"), ("v", "a", "buy")).train
    assert log.behaviors == (Behavior(name="buy"),)


def test_the_target_goes_last_and_rows_follow() -> None:
    behaviors = (Behavior(name="buy"), Behavior(name="view", role="auxiliary"), Behavior(name="hide", role="negative"))
    rows = [("u", "a", "buy"), ("u", "b", "hide"), ("u", "c", "view")]
    log = prepared("user item behavior", *rows, behaviors=behaviors).train
    assert [b.name for b in log.behaviors] == ["view", "hide", "buy"]
    assert rows_of(log) == rows
    assert log.behavior.tolist() == [2, 1, 0]


def test_a_part_without_behaviour_column_holds_target_events() -> None:
    parts = {
        "train": raw("user item behavior", ("u", "a", "view"), ("u", "b", "buy")),
        "test": raw("user item", ("u", "c")),
    }
    result = prepare(parts, FUNNEL)
    assert rows_of(result.parts["test"]) == [("u", "c", "buy")]
    assert result.report[0]["note"] == "no behaviour column in test: all rows are 'buy'"


def test_several_names_need_a_schema() -> None:
    with pytest.raises(DataError, match=r"the behaviours 'buy', 'view'; say which is the target"):
        prepared("user item behavior", ("u", "a", "view"), ("v", "a", "buy"))


def test_an_unknown_behaviour_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(DataError, match=r"^unknown behaviour 'bye' in the log; allowed are 'view', 'buy'$"):
        prepared("user item behavior", ("u", "a", "bye"), behaviors=FUNNEL)


def test_a_schema_of_several_needs_the_column() -> None:
    with pytest.raises(DataError, match=r"no column 'behavior' to tell 'view', 'buy' apart"):
        prepared("user item", ("u", "a"), behaviors=FUNNEL)


@pytest.mark.parametrize(
    ("behaviors", "message"),
    [
        ((Behavior(name="a"), Behavior(name="b")), "exactly one behaviour must have the role 'target'; got 'a' target"),
        ((Behavior(name="a", role="auxiliary"),), "exactly one behaviour must have the role 'target'"),
        ((Behavior(name="a"), Behavior(name="a", role="auxiliary")), "each behaviour is declared once"),
        ((Behavior(name="a", role="main"),), "has the role 'main'; allowed are target, auxiliary, negative"),  # type: ignore[arg-type]
        ((Behavior(name="a", weight=-1.0),), "has the weight -1.0"),
        ((Behavior(name="a", weight=float("nan")),), "has the weight nan"),
    ],
)
def test_bad_schemas_are_refused(behaviors: tuple[Behavior, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared("user item behavior", ("u", "i", "a"), behaviors=behaviors)


def test_more_behaviours_than_rows_can_number_are_refused() -> None:
    many = tuple(Behavior(name=f"b{n}", role="auxiliary") for n in range(127))
    with pytest.raises(ConfigError, match="128 behaviours are declared; at most 127"):
        prepared("user item behavior", ("u", "i", "buy"), behaviors=(*many, Behavior(name="buy")))
    log = prepared("user item behavior", ("u", "i", "buy"), behaviors=(*many[1:], Behavior(name="buy"))).train
    assert log.behavior.tolist() == [126]


# --- bad input: one line that says what, where, and what is allowed


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        ("user item", [("u", "a"), (None, "b"), (None, "c")], "user_id is missing in 2 of 3 rows; the first is row 2"),
        ("user item", [("u", "a"), ("v", None)], "train: item_id is missing in 1 of 2 rows; the first is row 2"),
        ("user item behavior", [("u", "a", None)], "train: behavior is missing in 1 of 1 rows; the first is row 1"),
        ("user item time", [("u", "a", 1), ("u", "b", None)], "timestamp is missing in 1 of 2 rows; the first is"),
        ("user item weight", [("u", "a", -1.0)], "weight is negative in 1 of 1 rows; the first is row 1 (-1.0)"),
        ("user item weight", [("u", "a", 1.0), ("u", "b", float("nan"))], "row 2 (nan)"),
        ("user item weight", [("u", "a", 1e39)], "not a finite number in 1 of 1 rows; the first is row 1 (1e+39)"),
        ("user item label", [("u", "a", float("inf"))], "label is not a finite number in 1 of 1 rows"),
        ("user item time", [("u", "a", "monday")], "column 'timestamp' is String; times are integers"),
        ("user item time", [("u", "a", 1.5)], "column 'timestamp' is Float64; times are integers"),
        ("user item weight", [("u", "a", "heavy")], "column 'weight' is String; it must be numeric"),
        ("user item behavior", [("u", "a", 1)], "column 'behavior' is Int64; behaviours are text"),
        ("user item", [(1.5, "a")], "column 'user_id' is Float64; ids are text or integers"),
        ("user thing", [("u", "a")], "train: there is no column 'item_id'; found 'user_id', 'thing'"),
        ("user item", [], "train: there are no rows"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_refused(columns: str, rows: list[tuple[object, ...]], message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepared(columns, *rows)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_sum_beyond_float32_are_refused() -> None:
    with pytest.raises(DataError, match="sum to 6e"):
        prepared("user item weight", ("u", "a", 3e38), ("u", "a", 3e38), dedupe="sum")


def test_the_first_offender_is_the_first_row_of_the_file() -> None:
    frame = raw("user item weight row", ("u", "a", -1.0, 8), ("u", "b", -2.0, 4))
    with pytest.raises(DataError, match=r"row 5 \(-2.0\)"):
        prepare({"train": frame})


def test_a_step_that_leaves_nothing_says_which() -> None:
    with pytest.raises(DataError, match=r"nothing is left in train after the step 'positives' \(label >= 6\)"):
        prepared("user item label", ("u", "a", 5.0), positive=6)


@pytest.mark.parametrize("key", ["positive", "binary"])
def test_a_threshold_needs_labels(key: str) -> None:
    with pytest.raises(DataError, match=f"no column 'label' \\(or 'rating'\\), which {key} needs"):
        prepared("user item", ("u", "a"), **{key: 4})


def test_configs_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="dedupe is 'any'; allowed are first, last, sum, none"):
        PrepareConfig(dedupe="any")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="k_core is -1"):
        PrepareConfig(k_core=-1)
    with pytest.raises(ConfigError, match="exclude each other"):
        PrepareConfig(positive=4, binary=4)


# --- real data


def test_taobao(shared_data: Path) -> None:
    folder = shared_data / "taobao"
    behaviors = (
        Behavior(name="view", role="auxiliary"),
        Behavior(name="cart", role="auxiliary", mask=False),
        Behavior(name="buy"),
    )
    parts = {name: pl.scan_parquet(folder / f"{name}.parquet") for name in ("train", "test")}
    result = prepare(parts, behaviors)
    assert (len(result.train.users), len(result.train.items)) == (15_449, 11_953)
    assert np.bincount(result.train.behavior).tolist() == [858_505, 180_027, 92_180]
    assert len(result.parts["test"]) == 15_449


def test_gowalla(shared_data: Path) -> None:
    parts = {}
    for name in ("train", "test"):
        lines = (shared_data / "gowalla" / f"{name}.txt").read_text().splitlines()
        pairs = [(user, item) for user, *items in map(str.split, lines) for item in items]
        parts[name] = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row").lazy()
    result = prepare(parts)
    assert (len(result.train.users), len(result.train.items)) == (29_858, 40_981)
    assert (len(result.train), len(result.parts["test"])) == (810_128, 217_242)
    assert result.train.items.ids[:3].to_list() == [0, 1, 2]
