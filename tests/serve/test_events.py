import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macrorec.data.log import Behavior
from macrorec.serve.events import AHEAD, Event, EventError, ItemAnnounced, Schema, hidden

SCHEMA = Schema(behaviors=(Behavior(name="view", role="auxiliary"), Behavior(name="buy")))
GOOD = {"user_id": "u", "item_id": "i", "behavior": "view"}


def test_an_event_by_our_names() -> None:
    raw = {**GOOD, "timestamp": 1_700_000_000, "weight": 2, "label": True, "source": "f", "offset": 7}
    assert SCHEMA.check(raw) == Event("u", "i", "view", 1_700_000_000, 2.0, 1.0, None, "f", 7)


def test_an_event_by_gorses_names() -> None:
    raw = {
        "FeedbackType": "buy",
        "UserId": "bob",
        "ItemId": "x",
        "Timestamp": "2022-11-20T13:55:27Z",
        "Value": 3,
        "Comment": "",
        "Updated": "2022-11-20T13:55:27Z",
    }
    assert SCHEMA.check(raw) == Event("bob", "x", "buy", 1_668_952_527, 3.0)


def test_what_is_left_out_is_filled_in() -> None:
    assert SCHEMA.check({"user_id": "u", "item_id": 7}) == Event("u", "7", "buy", None, 1.0)
    with pytest.raises(EventError, match="behavior is missing"):
        Schema().check({"user_id": "u", "item_id": "i"})


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"user_id": None}, "user_id is missing", "user_id"),
        ({"user_id": ""}, "user_id is blank", "user_id"),
        ({"user_id": " \u3000"}, "user_id is blank", "user_id"),
        ({"user_id": "a\nb"}, "control character", "user_id"),
        ({"user_id": "a\x7f"}, "control character", "user_id"),
        ({"user_id": "a\x85"}, "control character", "user_id"),
        ({"item_id": "\ud800"}, "half of a pair", "item_id"),
        ({"item_id": "i" * 257}, "257 characters; at most 256", "item_id"),
        ({"item_id": 1.5}, "item_id is text, not a number", "item_id"),
        ({"item_id": True}, "item_id is text, not true or false", "item_id"),
        ({"item_id": ["i"]}, "item_id is text, not an array", "item_id"),
        ({"item_id": 1 << 63}, "beyond 64 bits", "item_id"),
        ({"behavior": "look"}, "unknown behaviour 'look'; allowed are 'view', 'buy'", "behavior"),
        ({"behavior": 5}, "behavior is text", "behavior"),
        ({"weight": float("nan")}, "weight nan is not a finite number of at least 0", "weight"),
        ({"weight": float("inf")}, "weight inf is not", "weight"),
        ({"weight": -1}, "weight -1 is not", "weight"),
        ({"weight": 10**400}, "weight a number beyond 64 bits is not", "weight"),
        ({"weight": True}, "weight is a number, not true or false", "weight"),
        ({"weight": "2"}, "weight is a number, not text", "weight"),
        ({"label": float("-inf")}, "label -inf is not a finite number", "label"),
        ({"timestamp": -1}, "timestamp -1 is not between 0 and", "timestamp"),
        ({"timestamp": 1_700_000_000_000}, "is it in milliseconds", "timestamp"),
        ({"timestamp": 10**5000}, "beyond 64 bits", "timestamp"),
        ({"timestamp": "yesterday"}, "neither unix seconds nor ISO 8601", "timestamp"),
        ({"timestamp": 1.5}, "whole unix seconds", "timestamp"),
        ({"timestamp": False}, "whole unix seconds", "timestamp"),
        ({"source": "s"}, "source and offset go together", "offset"),
        ({"offset": 1}, "source and offset go together", "source"),
        ({"source": "s", "offset": -1}, "offset is an integer of at least 0", "offset"),
        ({"source": "s", "offset": 1 << 62}, "offset is an integer of at least 0", "offset"),
        ({"colour": "red"}, "unknown field 'colour'; known are user_id", None),
        ({"UserId": "v"}, "user_id is given twice", "user_id"),
    ],
)
def test_what_is_refused(change: dict[str, object], reason: str, field: str | None) -> None:
    with pytest.raises(EventError, match=reason) as caught:
        SCHEMA.check({**GOOD, **change}, 3)
    error = caught.value
    assert (error.index, error.field) == (3, field)
    assert str(error) == f"event 3: {error.reason}" and "\n" not in str(error) and len(str(error)) < 200


@pytest.mark.parametrize("raw", [None, [], "x", 5, {}, {1: 2}, {"": ""}])
def test_what_is_no_event(raw: object) -> None:
    with pytest.raises(EventError):
        SCHEMA.check(raw)


def test_extra_fields_may_be_passed_over() -> None:
    assert Schema(extra=True).check({**GOOD, "colour": "red"}).user_id == "u"


def test_ids_of_integers() -> None:
    schema = Schema(users_are_text=False)
    assert schema.check({**GOOD, "user_id": 7}) == schema.check({**GOOD, "user_id": "7"})
    for bad in ("007", "+7", "7.0", "x", str(1 << 63), "\u0667"):
        with pytest.raises(EventError, match="not an integer"):
            schema.check({**GOOD, "user_id": bad})
    assert schema.check({**GOOD, "user_id": str(-(1 << 63))}).user_id == str(-(1 << 63))


def test_a_clock_may_be_a_day_ahead() -> None:
    now = int(time.time())
    assert SCHEMA.check({**GOOD, "timestamp": now + AHEAD - 60}).timestamp == now + AHEAD - 60
    with pytest.raises(EventError, match="not between"):
        SCHEMA.check({**GOOD, "timestamp": now + AHEAD + 60})


def test_all_or_the_index_of_the_first_that_is_wrong() -> None:
    events = SCHEMA.check_all([GOOD, GOOD], key=b"k")
    assert [event.key for event in events] == [b"k\0\0\0\0", b"k\0\0\0\1"]
    with pytest.raises(EventError, match="event 1: weight"):
        SCHEMA.check_all([GOOD, {**GOOD, "weight": -1}, {}])


def test_an_item_is_checked_alike() -> None:
    assert SCHEMA.check_item({"item_id": "i", "title": "a\nb"}) == ItemAnnounced("i", None, "a b")
    assert SCHEMA.check_item(ItemAnnounced("i", "c", "t", 5)) == ItemAnnounced("i", "c", "t", 5)
    for bad in (
        {"item_id": " "},
        {"item_id": "i", "category": "\0"},
        {"item_id": "i", "x": 1},
        {"item_id": "i", "title": 5},
    ):
        with pytest.raises(EventError, match="event 4: "):
            SCHEMA.check_item(bad, 4)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["user_id", "ItemId", "behavior", "time", "weight", "label", "offset", "x"]), json_values
    )
)
def test_whatever_is_sent_is_an_event_or_refused(raw: dict[str, object]) -> None:
    for schema in (SCHEMA, Schema(extra=True)):
        try:
            event = schema.check(raw)
        except EventError as error:
            str(error).encode()
        else:
            assert 0 <= event.weight <= 3.4e38
            assert 0 < len(event.user_id.encode()) <= 1024 and event.user_id.strip()


def test_who_has_left_is_a_keyed_hash() -> None:
    assert len(hidden("ann", b"s")) == 32
    assert hidden("ann", b"s") == hidden("ann", b"s") != hidden("ann", b"t") != hidden("bob", b"t")
