from dataclasses import replace

import numpy as np
import pytest
from tests.logs import FUNNEL, prepared, rows_of, split_of

from macrorec.data.log import Behavior, concat
from macrorec.errors import DataError

ROWS = (("u", "x", "view", 1), ("u", "y", "buy", 2), ("v", "x", "buy", 3))
COLUMNS = "user item behavior time"


def log_of(*rows: tuple[object, ...]):  # type: ignore[no-untyped-def]
    return prepared(COLUMNS, *rows, behaviors=FUNNEL).train


def test_frame_has_external_ids_and_names() -> None:
    frame = log_of(*ROWS).frame()
    assert frame.columns == ["user_id", "item_id", "behavior", "timestamp"]
    assert frame.rows() == list(ROWS)


def test_take_and_of_keep_vocabularies() -> None:
    log = log_of(*ROWS)
    assert log.of("target").frame().rows() == [ROWS[1], ROWS[2]]
    assert log.of("auxiliary").frame().rows() == [ROWS[0]]
    assert len(log.of("negative")) == 0
    assert log.take(np.array([True, False, True])).users is log.users


def test_pairs_are_distinct_and_sorted() -> None:
    log = prepared("user item", (1, 2), (0, 1), (1, 2), (1, 1)).train
    assert log.pairs().tolist() == [0, 2, 3]


def test_digest_depends_on_content_not_on_order() -> None:
    log = log_of(*ROWS)
    assert log.take(np.array([2, 0, 1])).digest() == log.digest()
    assert log_of(*ROWS[:2]).digest() != log.digest()
    assert replace(log, time=log.time + 1).digest() != log.digest()
    assert replace(log, time=None).digest() != log.digest()
    other = (replace(FUNNEL[0], mask=True), FUNNEL[1])
    assert replace(log, behaviors=other).digest() != log.digest()


def test_digest_tells_ids_apart_that_join_to_the_same_bytes() -> None:
    one = prepared("user item", ("a\0b", "x"), ("c", "x")).train
    two = prepared("user item", ("a", "x"), ("b\0c", "x")).train
    assert one.digest() != two.digest()


def test_the_target_is_one_and_last() -> None:
    log = log_of(*ROWS)
    for behaviors in (FUNNEL[::-1], FUNNEL[:1], (Behavior(name="a"), Behavior(name="b"))):
        with pytest.raises(DataError, match="exactly one behaviour must have the role 'target'"):
            replace(log, behaviors=behaviors)


def test_concat_fills_weights_and_keeps_what_all_parts_have() -> None:
    split = split_of([("u", "x", 1)], [("u", "y", 2)], columns="user item time")
    weighted = replace(split.train, weight=np.array([2.5], dtype=np.float32))
    both = concat(weighted, replace(split.test, time=None))
    assert both.weight is not None
    assert both.weight.tolist() == [2.5, 1.0]
    assert both.time is None
    assert concat(split.train, split.test).time.tolist() == [1, 2]  # type: ignore[union-attr]


def test_valid_joins_train_for_the_final_fit() -> None:
    split = split_of([("u", "x")], [("u", "y")], [("u", "z")])
    joined = split.with_valid_in_train()
    assert rows_of(joined.train) == sorted(rows_of(split.train) + rows_of(split.valid))
    assert len(joined.valid) == 0
    assert joined.test is split.test
    assert joined.digest() != split.digest()
