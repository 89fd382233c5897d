"""The tables of a data set whose runs keep their metrics by train degree."""

from tests.report.test_results import row

from macrorec.report.degrees import tables
from macrorec.report.rankings import section


def told(recipe, seed, users, items, **more):
    """Rows of (range, users, relevant, value) per side."""
    sides = {"user": users, "item": items}
    names = ("degree", "users", "relevant", "ndcg@10")
    degrees = [dict(zip(names, own, strict=True)) | {"side": side} for side, rows in sides.items() for own in rows]
    return row(recipe, seed, 0.25, degrees=degrees, **more)


RUNS = {
    "bpr-shop": [
        told(
            "bpr-shop", 0, [("1-4", 1200, 1300, 0.2), ("100+", 3, 9, 0.5)], [("0", 4, 4, 0.0), ("5-9", 1203, 1305, 0.3)]
        ),
        told("bpr-shop", 1, [("1-4", 1201, 1300, 0.4), ("100+", 3, 9, 0.5)], [("5-9", 1203, 1309, 0.1)]),
    ],
    "ease-shop": [told("ease-shop", 0, [("1-4", 1200, 1300, 0.1)], [("0", 4, 4, None)]), row("ease-shop", 1, 0.3)],
    "popular-shop": [row("popular-shop", 0, 0.1)],
}


def test_the_tables_of_one_data_set():
    """Ranges in order of degree; the mean over the seeds that tell; recipes that do not tell have no row."""
    assert tables(RUNS, ["ndcg@10", "hr@10"]) == (
        """ndcg@10 by train degree of users, mean over seeds:

| recipe | 1-4 | 100+ |
| --- | --- | --- |
| *users* | 1,200, 1,201 | 3 |
| *relevant* | 1,300 | 9 |
| bpr-shop | 0.3000 | 0.5000 |
| ease-shop | 0.1000 |  |

ndcg@10 by train degree of held-out items, where only those of a range count as relevant, mean over seeds:

| recipe | 0 | 5-9 |
| --- | --- | --- |
| *users* | 4 | 1,203 |
| *relevant* | 4 | 1,305, 1,309 |
| bpr-shop | 0.0000 | 0.2000 |
| ease-shop |  |  |

"""
    )
    assert tables({"popular-shop": RUNS["popular-shop"]}, ["ndcg@10"]) == ""


def test_they_stand_behind_the_protocol():
    text = section("shop", [run for runs in RUNS.values() for run in runs], [], [])
    assert text.index("data `abcdef012345`.") < text.index("by train degree of users") < text.index("```")
    assert "train degree" not in section("shop", RUNS["popular-shop"], [], [])
