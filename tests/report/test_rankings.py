"""The section of a data set whose held-out items are counted three ways."""

from pathlib import Path

from tests.report.test_results import row, write

from macrorec.report.rankings import section
from macrorec.report.results import HEAD, markdown


def ways(hr, again, new, ndcg):
    values = {"hr@10": hr, "hr@10:re-engagement": again, "hr@10:discovery": new}
    values |= {"ndcg@10": ndcg, "ndcg@10:re-engagement": ndcg / 2, "ndcg@10:discovery": 2 * ndcg}
    return values | {"hr@50": 3 * hr, "hr@50:re-engagement": 3 * again, "hr@50:discovery": 3 * new}


def funnel(recipe, seed, values, model, sets="", **more):
    counts = {"users": 15, "users:re-engagement": 12, "users:discovery": 3}
    own = row(recipe, seed, 0.0, model, sets, counts=counts, run=f"{recipe}-{seed}-{sets.strip()}", **more)
    return {**own, "metrics": {"valid": {}, "test": values}}


RUNS = [
    funnel("bpr-shop", 0, ways(0.2, 0.1, 0.3, 0.1), "bpr"),
    funnel("bpr-shop", 1, ways(0.4, 0.1, 0.3, 0.1), "bpr"),
    funnel("bpr-shop", 0, ways(0.1, 0.05, 0.1, 0.04), "bpr", "--set model.dim=3 "),
    row("ease-shop", 0, 0.25, run="ease-shop-0"),
]
KNOWN = [
    {"dataset": "shop", "model": "BPR", "metric": "ndcg@10", "value": 0.05, "source": "A 2020"},
    {"dataset": "shop", "model": "BPR", "metric": "hr@10", "value": 0.31, "source": "A 2020"},
    {"dataset": "shop", "model": "Rule", "metric": "hr@10", "value": 0.5, "source": "C 2021"},
]
SPAN = {"difference": 0.1, "low": -0.05, "high": 0.25}
COMPARISON = {
    "first": {"name": "bpr-shop", "runs": [own["run"] for own in RUNS[:2]]},
    "second": {"name": "ease-shop", "runs": ["e"]},
    "count": "all",
    "resamples": 10_000,
    "metrics": [{"metric": "ndcg@10", **SPAN}, {"metric": "hr@10:discovery", **SPAN, "difference": -0.1}],
    "command": "macrorec reproduce bpr-shop --seeds 0,1 --against ease-shop",
}


def test_the_whole_section_of_one_data_set():
    """A run without cohorts leaves their cells empty; a comparison that measured less leaves gaps."""
    assert section("shop", RUNS, KNOWN, [COMPARISON]) == (
        """## shop

Metrics over all held-out items, then over those of each cohort.
*re-engagement* (12 users): held-out items that the user has met in an auxiliary behaviour before.
*discovery* (3 users): held-out items that the user has met in no auxiliary behaviour before.

| recipe | hr@10 | re-engagement | discovery | ndcg@10 | re-engagement | discovery | published hr@10 / ndcg@10 \
| seeds | train s | peak MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| bpr-shop | 0.3000 ± 0.1414 | 0.1000 ± 0.0000 | 0.3000 ± 0.0000 | 0.1000 ± 0.0000 | 0.0500 ± 0.0000 \
| 0.2000 ± 0.0000 | 0.3100 / 0.0500 | 0, 1 | 1.5 | 300 |
| bpr-shop model.dim=3 | 0.1000 | 0.0500 | 0.1000 | 0.0400 | 0.0200 | 0.0800 | 0.3100 / 0.0500 | 0 | 1.5 | 300 |
| ease-shop |  |  |  | 0.2500 |  |  |  | 0 | 1.5 | 300 |

Over all held-out items:

| recipe | hr@50 |
| --- | --- |
| bpr-shop | 0.9000 ± 0.4243 |
| bpr-shop model.dim=3 | 0.3000 |
| ease-shop |  |

Differences of means over seeds; behind them the 95 % interval of a paired bootstrap over users, 10,000 resamples, \
with the seeds as they are.

| recipe | minus | hr@10 | re-engagement | discovery | ndcg@10 | re-engagement | discovery |
| --- | --- | --- | --- | --- | --- | --- | --- |
| bpr-shop | ease-shop |  |  | -0.1000 (-0.0500 .. +0.2500) | +0.1000 (-0.0500 .. +0.2500) |  |  |

1,234, 15 users in test; items of a user's buy in train are masked; data `abcdef012345`.

| recipe | metric | ours | published | gap | source |
| --- | --- | --- | --- | --- | --- |
| bpr-shop | ndcg@10 | 0.1000 | 0.0500 | +0.0500 | A 2020 |
| bpr-shop model.dim=3 | ndcg@10 | 0.0400 | 0.0500 | -0.0100 | A 2020 |
| bpr-shop | hr@10 | 0.3000 | 0.3100 | -0.0100 | A 2020 |
| bpr-shop model.dim=3 | hr@10 | 0.1000 | 0.3100 | -0.2100 | A 2020 |

| published | hr@10 | source |
| --- | --- | --- |
| Rule | 0.5000 | C 2021 |

```
macrorec reproduce bpr-shop --seeds 0,1 --against ease-shop
macrorec reproduce bpr-shop --set model.dim=3 --seeds 0
macrorec reproduce ease-shop --seeds 0
```
"""
    )


def test_a_published_value_may_speak_of_one_recipe_of_its_model():
    known = [{**value, "recipe": "bpr-shop"} for value in KNOWN[:2]]
    runs = [RUNS[0], {**RUNS[0], "recipe": "bpr-mb-shop", "run": "bpr-mb-shop-0"}]
    own, other = (line for line in section("shop", runs, known, []).splitlines() if "| 300 |" in line)
    assert own.startswith("| bpr-mb-shop") and "0.3100" not in own
    assert other.startswith("| bpr-shop") and "0.3100 / 0.0500" in other
    assert "| bpr-mb-shop | hr@10 |" not in section("shop", runs, known, [])


def test_sections_stand_on_the_page_by_data_set(tmp_path: Path):
    other = row("ease-town", 0, 0.5, run="ease-town-0")
    files = {f"recipes__{n}_json": own for n, own in enumerate([*RUNS[:2], other])}
    page = markdown(write(tmp_path, comparisons__c_json=COMPARISON, published_json=KNOWN, **files))
    first, second = section("shop", RUNS[:2], KNOWN, [COMPARISON]), section("town", [other], [], [])
    assert page == "\n".join([HEAD, first, second])
    assert "| recipe | ndcg@10 | seeds |" in second and "re-engagement" not in second


def test_one_cohort_alone_is_all_there_is_and_needs_no_columns():
    run = {**RUNS[0], "metrics": {"test": {"hr@10": 0.2, "hr@10:re-engagement": 0.2}}}
    assert "| recipe | hr@10 | seeds | train s | peak MiB |" in section("market", [run], [], [])
