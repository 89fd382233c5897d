import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from macrorec.serve import known
from macrorec.serve.known import Keys, Offsets, digest, runs, short


@given(st.lists(st.sets(st.integers(0, 40)), max_size=8))
def test_offsets_are_a_set_in_ranges(groups: list[set[int]]) -> None:
    offsets, plain = Offsets(), set[int]()
    table: dict[int, int] = {}  # as the file has it
    for group in groups:
        new = {offset for offset in group if offset not in offsets}
        assert new == group - plain
        gone, come = offsets.joined(new)
        for first, _ in gone:
            del table[first]
        table.update(come)
        offsets.change(gone, come)
        plain |= group
        assert offsets.ranges() == runs(sorted(plain)) == sorted(table.items())
        assert [n for n in range(-1, 42) if n in offsets] == sorted(plain)
        assert Offsets(sorted(table.items())).ranges() == offsets.ranges()


def test_keys_are_found_through_all_sizes(monkeypatch) -> None:
    monkeypatch.setattr(known, "_FRESH", 4)
    monkeypatch.setattr(known, "_FAN", 3)
    random = np.random.default_rng(0)
    words = [int(word) for word in random.integers(0, 1 << 63, 500)]
    keys = Keys(remember=1000)
    for n, word in enumerate(words):
        assert word not in keys
        keys.add([word])
        assert len(keys) == n + 1
    assert keys.which([*words, 5, 7]) == [True] * 500 + [False] * 2


def test_the_oldest_keys_go_first(monkeypatch) -> None:
    monkeypatch.setattr(known, "_FRESH", 4)
    monkeypatch.setattr(known, "_FAN", 3)
    keys = Keys(remember=100)
    for word in range(1, 1001):
        keys.add([word])
        assert all(keys.which(list(range(max(1, word - 99), word + 1))))
    assert len(keys) < 350 and 1 not in keys


def test_keys_come_back_from_digests() -> None:
    digests = [digest(b"%d" % n, b"secret") for n in range(1000)]
    keys = Keys(remember=2000)
    keys.load(b"".join(digests[:500]))
    keys.load(b"".join(digests[500:]))
    assert all(keys.which([short(one) for one in digests])) and len(keys) == 1000
    assert short(digest(b"x", b"secret")) not in keys
    assert digest(b"x", b"secret") != digest(b"x", b"other")


def test_runs() -> None:
    assert runs([]) == [] and runs([3]) == [(3, 3)] and runs([1, 2, 3, 7, 8, 10]) == [(1, 3), (7, 8), (10, 10)]
