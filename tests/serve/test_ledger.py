"""What stands in a snapshot is what was there at its mark, whatever has come since; and numbers go by positions."""

from tests.serve.market import bought

from macrorec.serve.events import Forgotten, ItemAnnounced
from macrorec.serve.ledger import Ledger
from macrorec.serve.log import Batch


def test_a_snapshot_is_what_was_there_at_the_mark() -> None:
    ledger = Ledger()
    ledger.append(Batch([1, 3, 4], [bought("a", "i1"), ItemAnnounced("x", "books", "X"), bought("b", "i2")]))
    mark = ledger.mark()
    later = [bought("c", "i3", "view"), ItemAnnounced("y", None, None), Forgotten("sign"), bought("a", "i4")]
    ledger.append(Batch([7, 8, 9, 11], later))
    assert (len(ledger), ledger.position) == (4, 11)
    old = Ledger.restore(*ledger.snapshot(mark))
    assert (len(old), old.position, old.forgotten, old.behaviors) == (2, 4, set(), ["buy"])
    assert old.users.series().to_list() == ["a", "b"] and old.items.series().to_list() == ["i1", "i2", "x"]
    assert [old.items.id_of(one.item) for one in old.announced] == ["x"]
    old.append(Batch([7, 8, 9, 11], later))  # as a start reads on
    for mine, whole in zip(old.rows(0, 4), ledger.rows(0, 4), strict=True):
        assert mine.tobytes() == whole.tobytes()
    new = Ledger.restore(*ledger.snapshot())
    assert new.forgotten == {"sign"} and new.announced == old.announced == ledger.announced


def test_rows_go_by_positions() -> None:
    ledger = Ledger()
    ledger.append(Batch([2, 5, 6], [bought("a", "i1"), bought("b", "i2"), bought("a", "i2")]))
    assert [ledger.row_after(position) for position in range(8)] == [0, 0, 1, 1, 1, 2, 3, 3]
    assert ledger.rows_of_item(ledger.items.number("i2"), 3).tolist() == [1, 2]
    assert ledger.forget("a") == 2 and ledger.forget("a") == 0 == ledger.forget("nobody")
    assert ledger.rows(0, 3).user_E.tolist() == [-1, 1, -1] and ledger.users.number("a") == -1
