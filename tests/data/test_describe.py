import json

from tests.logs import FUNNEL, prepared

from macrorec.data.describe import describe, table

LOG = prepared(
    "user item behavior time weight",
    ("u", "a", "view", 10, 1.0),
    ("u", "a", "view", 12, 1.0),
    ("u", "b", "view", 11, 1.0),
    ("v", "c", "view", 11, 2.0),
    ("v", "a", "view", 10, 1.0),
    ("u", "a", "buy", 13, 2.0),
    ("u", "a", "buy", 14, 2.0),
    ("v", "b", "buy", 15, 6.0),
    ("u", "c", "buy", 16, 2.0),
    behaviors=FUNNEL,
).train


def test_describe() -> None:
    assert describe(LOG) == {
        "rows": 9,
        "users": 2,
        "items": 3,
        "pairs": 3,
        "density": 0.5,
        "behaviors": [
            {
                "name": "view", "role": "auxiliary", "weight": 1.0, "mask": False,
                "rows": 5, "pairs": 4, "users": 2, "items": 3, "funnel": 1 / 3,
            },
            {
                "name": "buy", "role": "target", "weight": 1.0, "mask": True,
                "rows": 4, "pairs": 3, "users": 2, "items": 3, "funnel": 1.0,
            },
        ],
        "time": {"first": 10, "last": 16, "distinct": 7},
        "weight": {"min": 1.0, "mean": 2.0, "max": 6.0},
        "label": None,
        "degrees": {
            "user": {"min": 1, "p25": 1, "median": 1, "p75": 2, "p90": 2, "p99": 2, "max": 2, "mean": 1.5},
            "item": {"min": 1, "p25": 1, "median": 1, "p75": 1, "p90": 1, "p99": 1, "max": 1, "mean": 1.0},
        },
    }  # fmt: skip


def test_describe_is_plain() -> None:
    assert json.loads(json.dumps(describe(LOG))) == describe(LOG)


def test_degrees_count_users_without_target_events() -> None:
    log = prepared("user item behavior", ("u", "a", "buy"), ("v", "a", "view"), behaviors=FUNNEL).train
    assert describe(log)["degrees"]["user"] == {
        "min": 0, "p25": 0, "median": 0, "p75": 1, "p90": 1, "p99": 1, "max": 1, "mean": 0.5,
    }  # fmt: skip


def test_describe_of_an_empty_part() -> None:
    empty = describe(LOG.take(LOG.user < 0))
    assert (empty["rows"], empty["pairs"], empty["density"], empty["time"], empty["weight"]) == (0, 0, 0.0, None, None)
    assert empty["degrees"]["user"]["max"] == 0


def test_table() -> None:
    assert table(describe(LOG)).splitlines() == [
        "9 rows, 2 users, 3 items",
        "3 distinct target pairs, density 50.0000 %",
        "times 10 to 16, 7 distinct",
        "weight 1 to 6, mean 2",
        "",
        "behaviour  role       weight  mask  rows  pairs  users  items  of target pairs",
        "view       auxiliary       1    no     5      4      2      3           33.3 %",
        "buy        target          1   yes     4      3      2      3          100.0 %",
        "",
        "target partners of  mean  min  p25  median  p75  p90  p99  max",
        "users                1.5    1    1       1    2    2    2    2",
        "items                1.0    1    1       1    1    1    1    1",
    ]
