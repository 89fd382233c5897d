"""The best of each group are those of a full sort, after every gain, loss and newcomer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from macrorec.serve.popularity import Popularity


def wanted(count_I: np.ndarray, group_I: np.ndarray, group: int, n: int) -> list[int]:
    members = np.flatnonzero(group_I == group)
    return members[np.lexsort((members, -count_I[members]))][:n].tolist()


@given(st.data())
def test_the_best_are_those_of_a_full_sort(data: st.DataObject) -> None:
    n, n_groups, top = data.draw(st.integers(1, 30)), 3, data.draw(st.integers(1, 5))
    group_I = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)), np.int32)
    count_I = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), np.int64)
    popularity = Popularity(count_I, group_I, n_groups, top)
    for _ in range(data.draw(st.integers(0, 12))):
        match data.draw(st.sampled_from(["gain", "gain", "gain", "lose", "new"])):
            case "gain":
                items = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)), np.int64)
                np.add.at(count_I, items, 1)
                popularity.gained(items, count_I)
            case "lose":
                items = np.flatnonzero(count_I)[:2]
                count_I[items] -= 1
                popularity.lost(items, count_I)
            case "new":
                n += 1
                group_I = np.append(group_I, np.int32(data.draw(st.integers(-1, 2))))
                count_I = np.append(count_I, 0)
                popularity.grow(n, group_I[-1:])
                popularity.gained(np.array([n - 1]), count_I)
        for group in range(n_groups):
            best = popularity.best(group, count_I).tolist()
            assert best[:top] == wanted(count_I, group_I, group, top)
            assert len(set(best)) == len(best)
