"""Ids and numbers: one by one as all at once, through growth, snapshots and withdrawals."""

import threading

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from macrorec.serve.idtable import IdTable

IDS = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20)


@given(st.lists(st.one_of(IDS, st.sampled_from(["a", "b", "ab", "é"])), max_size=200), st.integers(1, 7))
def test_numbers_are_those_of_a_dictionary(ids: list[str], cut: int) -> None:
    table, known = IdTable(), dict[str, int]()
    for first in range(0, len(ids), cut):
        part = ids[first : first + cut]
        for one in part:
            known.setdefault(one, len(known))
        given_as = part if first % 2 else pl.Series(part, dtype=pl.String)
        assert table.add(given_as).tolist() == [known[one] for one in part]
    assert len(table) == len(known)
    asked = [*known, "never seen", ""]
    assert table.numbers(asked).tolist() == [known.get(one, -1) for one in asked]
    assert [table.number(one) for one in asked] == [known.get(one, -1) for one in asked]
    assert table.ids_of(np.arange(len(known))) == list(known) and table.series().to_list() == list(known)
    again = IdTable.from_series(table.series())
    assert again.numbers(asked).tolist() == table.numbers(asked).tolist()


def test_a_withdrawn_id_is_unknown_and_gets_another_number() -> None:
    table = IdTable(["ann", "bob", "cat"])
    table.withdraw(1)
    assert table.numbers(["ann", "bob", "cat"]).tolist() == [0, -1, 2]
    assert b"bob" not in table._text.tobytes() and table.id_of(1) == ""
    assert table.series().to_list() == ["ann", None, "cat"]
    assert table.add(["bob"]).tolist() == [3] and table.id_of(3) == "bob"
    table.add([f"x{n}" for n in range(1000)])
    again = IdTable.from_series(table.series())
    for one in (table, again):
        assert one.numbers(["ann", "bob", "x7"]).tolist() == [0, 3, 11] and one.number("") == -1


def test_what_is_no_text_is_unknown() -> None:
    table = IdTable(["a"])
    assert table.number("\ud800") == -1 and table.numbers(["\ud800", "a"]).tolist() == [-1, 0]


def test_a_prefix_stays_while_more_come() -> None:
    table = IdTable([f"u{n}" for n in range(100)])
    prefix = table.series(50)
    table.add([f"v{n}" for n in range(10_000)])
    assert prefix.to_list() == [f"u{n}" for n in range(50)] == table.series(50).to_list()


def test_others_may_look_up_while_one_adds() -> None:
    table, faults, stop = IdTable(["u0"]), list[str](), threading.Event()

    def look() -> None:
        while not stop.is_set():
            n = len(table)
            for number in (0, n // 2, n - 1):
                if table.number(f"u{number}") != number or table.id_of(number) != f"u{number}":
                    faults.append(f"u{number}")

    thread = threading.Thread(target=look)
    thread.start()
    for n in range(1, 20_000, 7):
        table.add([f"u{k}" for k in range(n, n + 7)])
    stop.set()
    thread.join(30)
    assert not faults
