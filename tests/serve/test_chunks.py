import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from macrorec.serve import chunks
from macrorec.serve.events import Entry, Event, Forgotten, ItemAnnounced
from macrorec.serve.log import FRAME, Batch

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
times = st.integers(0, 1 << 40)
entries = st.one_of(
    st.builds(
        Event,
        words,
        words,
        st.sampled_from(["view", "buy"]),
        times,
        st.sampled_from([1.0, 0.0, 2.5]),
        st.none() | st.floats(-5, 5),
    ),
    st.builds(ItemAnnounced, words, st.none() | words, st.none() | words, times),
    st.builds(Forgotten, words, times),
)
CODES = {"buy": 0, "view": 1}


def packed(groups: list[list[Entry]]) -> tuple[list[int], list[bytes]]:
    firsts, bodies, first = [], [], 1
    for group in groups:
        firsts.append(first)
        bodies.append(chunks.columns_of(group, first, CODES, bytes(16 * (len(group) % 3))).pack(first))
        first += len(group)
    return firsts, bodies


@given(st.lists(st.lists(entries, min_size=1, max_size=4), max_size=5))
def test_what_is_packed_in_groups_is_unpacked_whole(groups: list[list[Entry]]) -> None:
    flat = [entry for group in groups for entry in group]
    firsts, bodies = packed(groups)
    columns = chunks.unpack(firsts, bodies)
    batch = columns.batch(list(CODES))
    assert list(batch.entries) == flat
    assert batch.positions.tolist() == list(range(1, len(flat) + 1))
    assert [chunks.size(body) for body in bodies] == list(map(len, groups))
    assert b"".join(map(chunks.keys_of, bodies)) == columns.keys
    again = chunks.unpack([1], [columns.pack(1)])
    assert list(again.batch(list(CODES)).entries) == flat and again.keys == columns.keys
    assert Batch(range(1, len(flat) + 1), flat).events.equals(batch.events)


@given(st.lists(st.lists(entries, min_size=1, max_size=4), max_size=4), st.integers(0, 16), st.integers(1, 16))
def test_a_part_by_position(groups: list[list[Entry]], after: int, limit: int) -> None:
    flat = [entry for group in groups for entry in group]
    part = chunks.unpack(*packed(groups)).beyond(after, limit).batch(list(CODES))
    assert list(part.entries) == flat[after : after + limit]
    assert part.positions.tolist() == list(range(1, len(flat) + 1))[after : after + limit]


@given(st.lists(entries, min_size=1, max_size=8), st.integers(0, 7))
def test_without_a_user(group: list[Entry], n: int) -> None:
    user = getattr(group[n % len(group)], "user_id", "somebody")
    left = [(p, e) for p, e in enumerate(group, 5) if not (isinstance(e, Event) and e.user_id == user)]
    columns = chunks.unpack([5], [chunks.columns_of(group, 5, CODES, b"k" * 16).pack(5)]).without(user.encode())
    batch = chunks.unpack([5], [columns.pack(5)]).batch(list(CODES))
    assert list(zip(batch.positions.tolist(), batch.entries, strict=True)) == left
    assert columns.keys == b"k" * 16


def test_plain_events_are_small() -> None:
    group = [Event(f"u{n}", "i", "buy", n) for n in range(100)]
    assert len(chunks.columns_of(group, 1, CODES, b"").pack(1)) < 100 * (2 + 3 + 2 + 1 + 2 + 8) + 30


def test_a_checksum_is_of_the_place_too() -> None:
    sums = {chunks.checksum(*which) for which in ((1, 2, b"x"), (1, 3, b"x"), (2, 2, b"x"), (1, 2, b"y"))}
    assert len(sums) == 4


def test_a_batch_of_columns_and_one_of_entries_agree() -> None:
    group: list[Entry] = [
        Event("u", "i", "buy", 5),
        ItemAnnounced("j", None, None, 6),
        Event("v", "i", "view", 7, 2.0, 0.5),
    ]
    batch = Batch([4, 6, 9], group)
    assert batch.others == [(6, group[1])] and batch.last == 9 and len(batch) == 3
    assert batch.events.equals(
        pl.DataFrame(
            [(4, "u", "i", "buy", 5, 1.0, None), (9, "v", "i", "view", 7, 2.0, 0.5)], schema=FRAME, orient="row"
        )
    )
    columns = Batch(np.array([4, 6, 9]), events=batch.events, others=batch.others)
    assert list(columns.entries) == group
    assert Batch([], []).last == 0 and len(Batch([], []).events) == 0
