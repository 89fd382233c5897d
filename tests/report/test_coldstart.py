"""What a study of new users looks like."""

from tests.report.test_plots import texts
from tests.report.test_results import write

from macrorec.report import plots
from macrorec.report.coldstart import section
from macrorec.report.results import markdown, pictures


def cell(mean, deviation=None):
    return {"ndcg@10": {"mean": mean, "deviation": deviation}, "hr@10": {"mean": 0.9, "deviation": None}}


STUDY = {
    "recipe": "bpr-shop",
    "metric": "ndcg@10",
    "items": [1, "all"],
    "seeds": [0, 1],
    "users": [92, 1093],
    "ways": {"fold-in": [cell(0.1, 0.02), cell(0.3)], "retrained": [cell(0.2), cell(0.25)], "ease": [cell(0.3)] * 2},
    "differences": [
        {"items": 1, "difference": -0.1, "low": -0.15, "high": -0.05},
        {"items": "all", "difference": 0.05, "low": -0.01, "high": 0.11},
    ],
    "seconds": {"fit": 2.0, "fold-in": 0.44, "retrained": 3.06},
    "command": "macrorec coldstart bpr-shop --items 1",
}


def test_the_whole_section():
    assert section([STUDY]) == (
        """### bpr-shop

92, 1,093 users, held out of train, give so many of their items; ndcg@10, seeds 0, 1. Behind a difference its 95 % \
interval, by a paired bootstrap over users.

| items | 1 | all |
| --- | --- | --- |
| fold-in | 0.1000 ± 0.0200 | 0.3000 |
| retrained | 0.2000 | 0.2500 |
| ease | 0.3000 | 0.3000 |
| fold-in minus retrained | -0.1000 (-0.1500 .. -0.0500) | +0.0500 (-0.0100 .. +0.1100) |

Fitting without them took 2.0 s; folding in and ranking, for all columns together, 0.4 s; retraining 3.1 s.

![ndcg@10 by items of new users, bpr-shop](plots/coldstart-bpr-shop.svg)

```
macrorec coldstart bpr-shop --items 1
```
"""
    )


def test_it_stands_on_the_page_with_its_plot(tmp_path):
    write(tmp_path, coldstart__a_json=STUDY)
    assert markdown(tmp_path).endswith(f"## New users\n\n{section([STUDY])}")
    (svg,) = pictures(tmp_path).values()
    assert pictures(tmp_path).keys() == {"coldstart-bpr-shop"} and svg == plots.coldstart(STUDY)
    assert {"fold-in", "retrained", "ease", "1", "all", "ndcg@10", "items of a new user"} <= set(texts(svg))
