"""The names that users of this field know lead to our columns, and nothing is guessed between two."""

import pytest

from macrorec.data.sources.columns import match
from macrorec.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("names", "mapping"),
    [
        ("user_id item_id", "user_id item_id"),
        ("userID itemID rating", "user_id item_id label"),
        ("userId movieId rating timestamp", "user_id item_id label timestamp"),
        ("user item", "user_id item_id"),
        ("USER Item datetime", "user_id item_id timestamp"),
        ("UserId ItemId FeedbackType Value Timestamp", "user_id item_id behavior weight timestamp"),
        ("user-id item_id weight label", "user_id item_id weight label"),
    ],
)
def test_known_names(names: str, mapping: str) -> None:
    theirs, ours = names.split(), mapping.split()
    assert match(theirs, {}, {}, "f") == dict(zip(ours, theirs, strict=True))


def test_an_exact_name_wins_over_an_alias_and_a_mapping_over_both() -> None:
    names = ["user", "user_id", "item_id", "rating", "label", "x"]
    found = match(names, {}, {}, "f")
    assert found == {"user_id": "user_id", "item_id": "item_id", "label": "label"}
    assert match(names, {"user_id": "x", "label": "rating"}, {}, "f")["user_id"] == "x"
    assert match(names, {"label": "rating"}, {}, "f")["label"] == "rating"


def test_an_empty_name_leaves_a_column_out() -> None:
    assert match(["user", "item", "rating"], {"label": ""}, {}, "f") == {"user_id": "user", "item_id": "item"}


def test_a_column_is_used_once() -> None:
    defaults = {"user_id": "1", "item_id": "2", "weight": "3"}
    taken = match(["user", "item", "rating"], {"weight": "rating"}, {}, "f")
    assert taken == {"user_id": "user", "item_id": "item", "weight": "rating"}
    assert match(["product", "sku", "Customer"], {}, {}, "f") == {"user_id": "Customer", "item_id": "sku"}
    assert match(["1", "2", "3"], {"label": "3"}, defaults, "f") == {"user_id": "1", "item_id": "2", "label": "3"}


@pytest.mark.parametrize(
    ("names", "wanted", "kind", "message"),
    [
        (["item"], {}, DataError, r"no column for user_id \(known names: user_id, user.*; the file has 'item'"),
        (["user"], {}, DataError, "no column for item_id.*; say which, such as item_id=NAME"),
        (
            ["user", "time", "thing"],
            {},
            DataError,
            "'time', 'thing'; say which, such as item_id=thing",
        ),
        (["whose", "what"], {"item_id": "what"}, DataError, "say which, such as user_id=whose"),
        (["user", "uid", "item"], {}, DataError, "both 'user' and 'uid' could be user_id"),
        (["user", "item"], {"user_id": "who"}, DataError, "no column 'who' for user_id; the file has 'user', 'item'"),
        (
            ["user", "item"],
            {"usr": "user"},
            ConfigError,
            "'usr' is not a column of a log; allowed are user_id, item_id",
        ),
    ],
)
def test_what_is_refused(names: list[str], wanted: dict[str, str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        match(names, wanted, {}, "f")
