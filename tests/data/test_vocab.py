import numpy as np
import polars as pl
import pytest

from macrorec.data.vocab import Vocab, sorted_vocab
from macrorec.errors import DataError

HOSTILE = ["a b", '"', "'", "🦊", "", "\n", "\0", "a" * 10_000, "é", "e\u0301", "-1", "1e3", "None", "nan", "007"]


def test_numbers_are_positions_and_minus_one_for_unknown() -> None:
    vocab = Vocab(["b", "a", "c"])
    assert vocab.numbers(["a", "b", "c", "d", None]).tolist() == [1, 0, 2, -1, -1]
    assert vocab.ids_of([2, 0]).to_list() == ["c", "b"]
    assert len(vocab) == 3
    assert vocab.is_text


def test_hostile_ids_come_back_as_they_were() -> None:
    vocab = Vocab(HOSTILE)
    assert vocab.numbers(HOSTILE).tolist() == list(range(len(HOSTILE)))
    assert vocab.ids_of(np.arange(len(HOSTILE))).to_list() == HOSTILE


def test_text_that_is_all_canonical_integers_becomes_integers() -> None:
    assert Vocab(["10", "9"]) == Vocab([10, 9])
    assert Vocab(["10", "09"]).is_text
    assert Vocab(["+7"]).is_text
    assert Vocab([" 7"]).is_text
    assert Vocab(["-0"]).is_text
    assert Vocab(["9223372036854775808"]).is_text


def test_lookup_across_types_is_exact() -> None:
    integers = Vocab([7, 8])
    assert integers.numbers(["7", "007", "7.0", "x"]).tolist() == [0, -1, -1, -1]
    assert integers.numbers(pl.Series([7.0, 7.5, float("nan")])).tolist() == [0, -1, -1]
    assert integers.numbers(np.array([8, 9], dtype=np.uint8)).tolist() == [1, -1]
    assert Vocab(["7", "x"]).numbers([7, 8]).tolist() == [0, -1]


def test_unsigned_ids_beyond_int64_are_text() -> None:
    vocab = Vocab(pl.Series([2**64 - 1, 0], dtype=pl.UInt64))
    assert vocab.is_text
    assert vocab.numbers(["18446744073709551615"]).tolist() == [0]


def test_empty() -> None:
    empty = Vocab([])
    assert len(empty) == 0
    assert empty.numbers(["a", "b"]).tolist() == [-1, -1]
    assert Vocab(["a"]).numbers([]).tolist() == []


def test_null_and_repeated_ids_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 are null"):
        Vocab(["a", None])
    with pytest.raises(DataError, match="twice: 'a'"):
        Vocab(["a", "b", "a"])
    with pytest.raises(DataError, match="twice: 7"):
        Vocab([7, 8, 7])


def test_subset_keeps_order_and_maps_old_to_new() -> None:
    vocab, renumber = Vocab(["b", "a", "c"]).subset(np.array([True, False, True]))
    assert vocab.ids.to_list() == ["b", "c"]
    assert renumber.tolist() == [0, -1, 1]


def test_sorted_vocab_orders_integers_by_value_and_text_by_bytes() -> None:
    assert sorted_vocab([pl.Series(["10", "9", "-2"])]).ids.to_list() == [-2, 9, 10]
    assert sorted_vocab([pl.Series(["10", "9", "x"])]).ids.to_list() == ["10", "9", "x"]
    assert sorted_vocab([pl.Series(["é", "z", "Z", "🦊", "\uffff"])]).ids.to_list() == ["Z", "z", "é", "\uffff", "🦊"]


def test_sorted_vocab_of_parts_with_different_types() -> None:
    assert sorted_vocab([pl.Series([2, 1]), pl.Series(["3", "1"])]).ids.to_list() == [1, 2, 3]
    assert sorted_vocab([pl.Series([], dtype=pl.String), pl.Series(["-1", "-2"])]).ids.to_list() == [-2, -1]
    assert sorted_vocab([pl.Series([2, 10]), pl.Series(["x"])]).ids.to_list() == ["10", "2", "x"]
