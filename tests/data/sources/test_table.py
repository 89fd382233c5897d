from datetime import date, datetime

import polars as pl
import pytest
from tests.logs import rows_of

from macrorec.data.sources.table import read_log, read_table
from macrorec.errors import ConfigError, DataError


def test_known_names_in_our_order_and_dates_in_seconds():
    table = {"rating": [5.0], "Item": ["x"], "userID": [1], "time": [datetime(1970, 1, 2)], "other": [0]}
    frame = read_table(table)
    assert frame.columns == ["user_id", "item_id", "timestamp", "label"]
    assert frame.row(0) == (1, "x", 86_400, 5.0)
    assert read_table({"u": [1], "item": [2], "date": [date(1970, 1, 2)]}, {"user_id": "u"}).row(0) == (1, 2, 86_400)


def test_a_column_can_be_left_out():
    assert read_table({"user": [1], "item": [2], "rating": [3]}, {"label": ""}).columns == ["user_id", "item_id"]


@pytest.mark.parametrize("table", [7, "clicks", [1, 2], object()])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(DataError):
        read_table(table)


def test_repeated_events_stay_and_low_ratings_go():
    log, text = read_log({"user": ["a", "a", "b"], "item": [1, 1, 1], "rating": [5, 4, 1]}, positive=4)
    assert [row[:2] for row in rows_of(log)] == [("a", 1), ("a", 1)]
    assert text == (True, False)
    assert read_log(log) == (log, (False, False))


def test_one_target_of_several_behaviors():
    table = pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 2], "event": ["view", "buy", "view"]})
    log, _ = read_log(table, target="buy")
    assert [(b.name, b.role, b.mask) for b in log.behaviors] == [("view", "auxiliary", False), ("buy", "target", True)]
    with pytest.raises(ConfigError, match="not both"):
        read_log(table, target="buy", behaviors=log.behaviors)
    with pytest.raises(ConfigError, match="no behaviour 'cart'; it has 'buy', 'view'"):
        read_log(table, target="cart")
