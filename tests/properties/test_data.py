"""What must hold for every log: parts partition it, order does not matter, fast equals slow and obvious."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import polars as pl
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.logs import FUNNEL, rows_of

from macrorec.data.kcore import k_core
from macrorec.data.log import Split
from macrorec.data.prepare import PrepareConfig, Prepared, prepare
from macrorec.data.split import (
    Cut,
    LeaveLastOne,
    LeaveOneOut,
    Nothing,
    RandomFraction,
    SplitConfig,
    TimeQuantile,
    split,
)
from macrorec.data.vocab import Vocab, sorted_vocab
from macrorec.errors import DataError

IDS = st.one_of(
    st.text(max_size=6),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.sampled_from(["", " ", '"', "'", "🦊", "a" * 10_000, "\0", "\r\n", "007", "-0", "None", "null", "nan", "1e5"]),
)
EVENT = st.tuples(
    st.integers(0, 5), st.integers(0, 6), st.sampled_from(["buy", "buy", "view"]), st.integers(0, 9),
    st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
BASE = [(user, item, "buy", 4 * item + user, 1.0) for user in range(3) for item in range(4)]
"""Enough target events that few cuts leave nothing."""
LOGS = st.lists(EVENT, max_size=30).map(lambda events: BASE + events)
NAMES = ["user_id", "item_id", "behavior", "timestamp", "weight"]
RANDOM_CUTS: st.SearchStrategy[Cut] = st.one_of(
    st.just(Nothing()),
    st.builds(LeaveOneOut, at_least=st.integers(1, 3)),
    st.builds(RandomFraction, fraction=st.sampled_from([0.2, 0.5]), per_user=st.booleans()),
)
CUTS = st.one_of(
    RANDOM_CUTS,
    st.builds(LeaveLastOne, at_least=st.integers(1, 3), drop_later=st.booleans()),
    st.builds(TimeQuantile, quantile=st.sampled_from([0.5, 0.8])),
)
VOCABULARIES = st.sampled_from(["train", "train+valid", "all"])


def prepared(events: list[Any], dedupe: str = "none", *, timed: bool = True) -> Prepared:
    frame = pl.DataFrame(events, schema=NAMES, orient="row")
    config = PrepareConfig(dedupe=dedupe)  # type: ignore[arg-type]
    return prepare({"train": (frame if timed else frame.drop("timestamp")).lazy()}, FUNNEL, config)


def cut_or_discard(log: Prepared, config: SplitConfig, seed: int = 0) -> Split:
    """The split, or another example where the cuts leave nothing."""
    try:
        return split(log, config, seed=seed)
    except DataError:
        assume(False)
        raise AssertionError from None


@given(st.lists(IDS, unique=True, max_size=20), st.lists(IDS, max_size=5))
def test_ids_and_numbers_round_trip(ids: list[str], others: list[str]) -> None:
    vocab = Vocab(ids)
    assert vocab.numbers(ids).tolist() == list(range(len(ids)))
    assert [str(i) for i in vocab.ids_of(np.arange(len(ids)))] == ids
    assert vocab.numbers(others).tolist() == [ids.index(other) if other in ids else -1 for other in others]


@given(st.lists(st.lists(IDS, max_size=10), min_size=1, max_size=3))
def test_sorted_vocab_is_the_sorted_set(parts: list[list[str]]) -> None:
    ids = set().union(*parts)
    vocab = sorted_vocab([pl.Series(part, dtype=pl.String) for part in parts])
    if vocab.is_text:
        assert vocab.ids.to_list() == sorted(ids, key=lambda i: i.encode())
    else:
        assert vocab.ids.to_list() == sorted(map(int, ids))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30), st.integers(0, 4))
def test_core_equals_dropping_one_at_a_time(pairs: list[tuple[int, int]], k: int) -> None:
    left = set(pairs)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        weak = [(u, i) for u, i in left if users[u] < k or items[i] < k]
        if not weak:
            break
        left.remove(weak[0])
        left -= {(u, i) for u, i in left if (u == weak[0][0] and users[u] < k) or (i == weak[0][1] and items[i] < k)}
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    keep_user, keep_item = k_core(array[:, 0], array[:, 1], 6, 6, k)
    assert {(u, i) for u, i in pairs if keep_user[u] and keep_item[i]} == left
    if k:
        assert keep_user.tolist() == [any(u == user for u, _ in left) for user in range(6)]
        assert keep_item.tolist() == [any(i == item for _, i in left) for item in range(6)]


@given(LOGS, st.sampled_from(["first", "last", "sum"]), st.booleans())
def test_dedupe_equals_a_dictionary(events: list[Any], policy: str, timed: bool) -> None:
    kept: dict[tuple[Any, ...], tuple[int, float]] = {}
    order = sorted(events, key=lambda e: e[3]) if timed else events
    for user, item, behavior, time, weight in order:
        key = (user, item, behavior)
        if key not in kept or policy == "last":
            kept[key] = (time, weight)
        elif policy == "sum":
            kept[key] = (kept[key][0], kept[key][1] + weight)
    expected = sorted((*key, time, weight) if timed else (*key, weight) for key, (time, weight) in kept.items())
    assert rows_of(prepared(events, policy, timed=timed).train) == expected


VALUES = {
    "user_id": st.one_of(st.lists(IDS), st.lists(st.none() | IDS), st.lists(st.integers(-(2**63), 2**63 - 1))),
    "item_id": st.one_of(st.lists(IDS), st.lists(st.floats()), st.lists(st.integers(0, 5))),
    "behavior": st.lists(st.sampled_from(["view", "buy", "buy ", "", None, "{}", "🦊\n"])),
    "timestamp": st.one_of(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.none() | st.floats())),
    "weight": st.one_of(st.lists(st.floats()), st.lists(st.none() | st.integers(-1, 9)), st.lists(st.text())),
    "label": st.lists(st.floats(-5, 5)),
}


@st.composite
def junk(draw: st.DrawFn) -> pl.LazyFrame:
    names = draw(st.lists(st.sampled_from([*NAMES, "label"]), unique=True))
    names = [*{"user_id": 0, "item_id": 0, **dict.fromkeys(names, 0)}][draw(st.sampled_from([0, 0, 0, 1])) :]
    columns = {name: draw(VALUES[name].filter(len)) for name in names}
    height = min(map(len, columns.values()))
    return pl.DataFrame({name: values[:height] for name, values in columns.items()}, strict=False).lazy()


@given(
    junk(), st.none() | junk(), st.sampled_from([(), FUNNEL]), st.sampled_from(["first", "last", "sum", "none"]),
    st.integers(0, 2), st.none() | st.floats(-5, 5),
)  # fmt: skip
def test_junk_is_prepared_or_refused_in_one_line(
    train: pl.LazyFrame, test: pl.LazyFrame | None, behaviors: Any, dedupe: Any, core: int, positive: float | None
) -> None:
    parts = {"train": train} if test is None else {"train": train, "test": test}
    config = PrepareConfig(dedupe=dedupe, k_core=core, positive=positive)
    try:
        result = prepare(parts, behaviors, config)
    except DataError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 500
    else:
        assert len(result.train) == result.report[-1]["rows"] - sum(map(len, list(result.parts.values())[1:]))


@given(LOGS, CUTS, CUTS, VOCABULARIES, st.integers(0, 2))
def test_parts_partition_the_log(events: list[Any], test: Cut, valid: Cut, vocabulary: Any, core: int) -> None:
    log = prepared(events)
    parts = cut_or_discard(log, SplitConfig(test=test, valid=valid, vocabulary=vocabulary, train_core=core))
    whole = Counter(rows_of(log.train))
    together = Counter(rows_of(parts.train)) + Counter(rows_of(parts.valid)) + Counter(rows_of(parts.test))
    assert together <= whole
    steps = parts.report[len(log.report) :]
    assert whole.total() - together.total() == sum(step["dropped"] for step in steps)
    assert [step["rows"] for step in steps[-3:]] == [len(parts.train), len(parts.valid), len(parts.test)]
    if core:
        users, items = defaultdict(set), defaultdict(set)
        for user, item, behavior, *_ in rows_of(parts.train):
            if behavior == "buy":
                users[user].add(item)
                items[item].add(user)
        assert min(map(len, [*users.values(), *items.values()])) >= core
        assert set(parts.train.users.ids_of(parts.train.user)) <= set(users)
    if vocabulary == "all" and not core and not getattr(test, "drop_later", False):
        assert together == whole
    if vocabulary == "train":
        assert set(parts.train.user) == set(range(len(parts.users)))
        assert set(parts.train.item) == set(range(len(parts.items)))


def same_in_any_order(events: list[Any], random: Any, config: SplitConfig, *, timed: bool) -> None:
    one = cut_or_discard(prepared(events, timed=timed), config, seed=4)
    shuffled = list(events)
    random.shuffle(shuffled)
    assert split(prepared(shuffled, timed=timed), config, seed=4).digest() == one.digest()


@given(LOGS, st.randoms(use_true_random=False), RANDOM_CUTS, RANDOM_CUTS, VOCABULARIES, st.booleans())
def test_row_order_does_not_matter_to_random_cuts(
    events: list[Any], random: Any, test: Cut, valid: Cut, vocabulary: Any, timed: bool
) -> None:
    same_in_any_order(events, random, SplitConfig(test=test, valid=valid, vocabulary=vocabulary), timed=timed)


@given(LOGS, st.randoms(use_true_random=False), CUTS, CUTS, VOCABULARIES)
def test_row_order_does_not_matter_where_no_user_has_two_events_of_one_time(
    events: list[Any], random: Any, test: Cut, valid: Cut, vocabulary: Any
) -> None:
    unique = list({(event[0], event[3]): event for event in events}.values())
    same_in_any_order(unique, random, SplitConfig(test=test, valid=valid, vocabulary=vocabulary), timed=True)


@given(LOGS, st.integers(1, 3), st.booleans())
def test_leave_last_one_equals_a_loop_over_users(events: list[Any], at_least: int, drop_later: bool) -> None:
    of_user: dict[int, list[Any]] = defaultdict(list)
    for event in sorted(events, key=lambda e: e[3]):
        of_user[event[0]].append(event)
    train, test = [], []
    for own in of_user.values():
        places = [place for place, event in enumerate(own) if event[2] == "buy"]
        if len(places) < at_least:
            train += own
            continue
        last = places[-1]
        test.append(own[last])
        train += own[:last] if drop_later else own[:last] + own[last + 1 :]
    cut = LeaveLastOne(at_least=at_least, drop_later=drop_later)
    parts = cut_or_discard(prepared(events), SplitConfig(test=cut, vocabulary="all"))
    assert rows_of(parts.test) == sorted(test)
    assert rows_of(parts.train) == sorted(train)


@given(LOGS, st.floats(0.3, 0.9), st.floats(0.3, 0.9))
def test_time_quantile_leaves_no_future_in_train(events: list[Any], first: float, second: float) -> None:
    cuts = SplitConfig(test=TimeQuantile(quantile=first), valid=TimeQuantile(quantile=second), vocabulary="all")
    parts = cut_or_discard(prepared(events), cuts)
    assert parts.train.time is not None and parts.valid.time is not None and parts.test.time is not None
    assert parts.train.time.max() < parts.valid.time.min()
    assert parts.valid.time.max() < parts.test.time.min()
    target = [e for e in events if e[2] == "buy"]
    held = (parts.test.behavior == parts.test.target).sum()
    assert len(target) - held >= first * len(target) - 1e-6


@given(LOGS, st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.integers(0, 3))
def test_random_fraction_takes_its_share_of_each_user(events: list[Any], fraction: float, seed: int) -> None:
    config = SplitConfig(test=RandomFraction(fraction=fraction), vocabulary="all")
    parts = cut_or_discard(prepared(events), config, seed)
    count = Counter(e[0] for e in events if e[2] == "buy")
    held = Counter(parts.users.ids_of(parts.test.user).to_list())
    for user, n in count.items():
        assert held[user] == min(int(np.floor(n * fraction + 0.5 + 1e-9)), n - 1)
