"""Names of groups and tables of reasons, by hand."""

import numpy as np
import polars as pl
import pytest

from macrorec.api import Reason, Reasons
from macrorec.data.vocab import Vocab
from macrorec.explanations import COLUMNS, called, names, table
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.typed import TypedMacroGraph

USERS, ITEMS = Vocab(pl.Series(["ann", "bob", "cid"])), Vocab(pl.Series(["a", "b", "c", "d", "e"]))
TITLES = pl.Series(["Alien", None, "Casablanca", "Dune", "E.T."])
# Ann and bob meet a and b, cid meets d and e; c is everybody's.
EVENTS = (np.array([0, 0, 1, 1, 0, 1, 2, 2, 2, 0]), np.array([0, 1, 0, 1, 2, 2, 2, 3, 4, 0]))
SIDES = (Groups(np.array([0, 0, 1], np.int32), 2), Groups(np.array([0, 0, 1, 1, -1], np.int32), 3))


def test_groups_are_called_after_their_items():
    found = names(MacroGraph(*SIDES, *EVENTS), USERS, ITEMS, TITLES)
    assert found.item_groups == ["Alien; b", "Casablanca; Dune", "(empty)"], "the most met first; e has no group"
    assert found.user_groups[0].split("; ")[:2] == ["Alien", "b"], "c is everybody's, and sets nobody apart"
    assert set(found.user_groups[1].split("; ")[:2]) == {"Dune", "E.T."}


def test_names_of_their_own_come_first():
    sides = [Groups(g.of_N, g.n, tuple(f"{name}{n}" for n in range(g.n))) for name, g in zip("UI", SIDES, strict=True)]
    found = names(MacroGraph(*sides, *EVENTS), USERS, ITEMS)
    assert (list(found.user_groups), list(found.item_groups)) == (["U0", "U1"], ["I0", "I1", "I2"])


def test_titles_or_ids():
    assert called(ITEMS, TITLES, np.array([0, 1])) == "Alien; b"
    assert called(ITEMS, None, np.array([0, 1])) == "a; b"


def reasons(*neighbours):
    return Reasons(logit=0.0, base=0.5, user=-0.25, item=0.125, neighbours=tuple(neighbours))


def reason(side, via, kind, number, contribution, *, count=1.0, of=0):
    return Reason(side, via, kind, number, count, 0.5, 0.25, contribution, type=of)


def test_a_table_adds_up_whatever_is_told():
    macro = MacroGraph(*SIDES, *EVENTS)
    found = reasons(
        reason("item", "recent", "user", 2, 0.0625),
        reason("user", "hop 1", "item group", 0, 0.03125, count=3),
        reason("user", "hop 1", "item group", 1, -1.0, count=2),
        reason("user", "hop 1", "item group", 2, 0.25, count=0),
        reason("user", "recent", "item", 3, 2.0),
    )
    whole = table(found, names(macro, USERS, ITEMS, TITLES))
    assert whole.schema == COLUMNS
    assert whole.select("side", "via", "what").rows() == [
        ("", "base", "nothing known"), ("user", "itself", ""), ("item", "itself", ""),
        ("user", "hop 1", "Casablanca; Dune"), ("user", "hop 1", "(empty)"), ("user", "hop 1", "Alien; b"),
        ("user", "recent", "Dune"), ("item", "recent", "cid"),
    ]  # fmt: skip
    assert whole["contribution"].sum() == found.total
    brief = table(found, names(macro, USERS, ITEMS, TITLES), 1)
    assert brief["contribution"].sum() == found.total
    others = brief.filter(pl.col("what") == "(others)").row(0)
    assert others == ("user", "hop 1", "(others)", 3.0, 1.0, 0.5, 0.28125)
    assert len(table(found, names(macro, USERS, ITEMS, TITLES), 3)) == len(whole), "no row of others where all are told"


@pytest.mark.parametrize(("of", "expected"), [(0, "Alien; b (liked)"), (1, "Alien; b (disliked)")])
def test_typed_edges_say_their_type(of, expected):
    macro = TypedMacroGraph(*SIDES, *EVENTS, types=("liked", "disliked"))
    found = reasons(reason("user", "hop 1", "item group", 0, 1.0, of=of))
    assert table(found, names(macro, USERS, ITEMS, TITLES))["what"][-1] == expected
