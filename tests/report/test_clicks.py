import json

from tests.report.results_of_clicks import comparison, row

from macrorec.report.clicks import commands, section
from macrorec.report.results import markdown, pictures

MACGNN = [row("macgnn-shop", seed, 0.7 + 0.02 * seed) for seed in (0, 1)]
DIN = [row("din-shop", seed, 0.65) for seed in (0, 1)]
FLAT = [row("macgnn-shop", seed, 0.6, sets="--set model.hop2=false ") for seed in (0, 1)]
COMPARISONS = [
    comparison(DIN, MACGNN, "all", -0.06),
    comparison(DIN, MACGNN, "warm", -0.05),
    comparison(FLAT, MACGNN, "all", -0.11),
]
SEARCHES = [{"recipe": "din-shop", "spent": {"trials": 20}, "budget": {"seeds": [0, 1]}}]


def test_the_whole_section_of_one_data_set():
    assert section("shop", [*MACGNN, *FLAT, *DIN], COMPARISONS, SEARCHES) == (
        """## shop: clicks

All impressions (100).

| recipe | auc | gauc | logloss | calibration | auc minus macgnn-shop | seeds | search | train s |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| din-shop | 0.6500 ± 0.0000 | 0.6500 ± 0.0000 | 0.3500 ± 0.0000 | 0.0100 ± 0.0000 """
        """| -0.0600 (-0.0700 .. -0.0500) | 0, 1 | 20 trials of 2 seeds | 2.0 |
| macgnn-shop | 0.7100 ± 0.0141 | 0.7100 ± 0.0141 | 0.2900 ± 0.0141 | 0.0100 ± 0.0000 |  | 0, 1 |  | 2.0 |

Warm impressions, whose user and item have positive history: those that the paper keeps (60 of 100).

| recipe | auc | gauc | logloss | calibration | auc minus macgnn-shop | seeds | search | train s |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| din-shop | 0.7500 ± 0.0000 | 0.7500 ± 0.0000 | 0.2500 ± 0.0000 | 0.0100 ± 0.0000 """
        """| -0.0500 (-0.0600 .. -0.0400) | 0, 1 | 20 trials of 2 seeds | 2.0 |
| macgnn-shop | 0.8100 ± 0.0141 | 0.8100 ± 0.0141 | 0.1900 ± 0.0141 | 0.0100 ± 0.0000 |  | 0, 1 |  | 2.0 |

Variants. All impressions (100).

| recipe | auc | gauc | logloss | calibration | auc minus macgnn-shop | seeds | search | train s |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| macgnn-shop model.hop2=false | 0.6000 ± 0.0000 | 0.6000 ± 0.0000 | 0.4000 ± 0.0000 | 0.0100 ± 0.0000 """
        """| -0.1100 (-0.1200 .. -0.1000) | 0, 1 |  | 2.0 |

Variants. Warm impressions, whose user and item have positive history: those that the paper keeps (60 of 100).

| recipe | auc | gauc | logloss | calibration | seeds | search | train s |
| --- | --- | --- | --- | --- | --- | --- | --- |
| macgnn-shop model.hop2=false | 0.7000 ± 0.0000 | 0.7000 ± 0.0000 | 0.3000 ± 0.0000 | 0.0100 ± 0.0000 | 0, 1 |  | 2.0 |

A difference is the mean AUC over seeds minus that of the other; behind it the 95 % interval of a paired bootstrap """
        """over users, 10,000 resamples, with the seeds as they are.

AUC by length of history, mean over seeds:

| cohort | impressions | positives | users | din-shop | macgnn-shop |
| --- | --- | --- | --- | --- | --- |
| all | 100 | 50 | 10 | 0.6500 | 0.7100 |
| warm | 60 | 30 | 6 | 0.7500 | 0.8100 |
| cold user | 40 | 20 | 4 |  |  |
| user 1-4 | 60 | 30 | 6 | 0.7500 | 0.8100 |

![reliability of shop](plots/reliability-shop.svg)

"""
    )


def test_one_command_beside_each_row():
    assert commands([*MACGNN, *FLAT, *DIN], COMPARISONS[:2]) == (
        "```\n"
        "macrorec reproduce din-shop --against macgnn-shop\n"
        "macrorec reproduce macgnn-shop --seeds 0,1\n"
        "macrorec reproduce macgnn-shop --set model.hop2=false --seeds 0,1\n"
        "```\n"
    )


def test_an_interval_of_other_runs_is_not_shown():
    """A third seed was run since: the interval on file is not that of the row."""
    more = [*DIN, row("din-shop", 2, 0.66)]
    text = section("shop", [*MACGNN, *more], COMPARISONS[:2], [])
    assert "minus" not in text
    assert "--against" not in commands(more, COMPARISONS)


def test_clicks_and_rankings_of_one_data_set_stand_apart_with_their_plots(tmp_path):
    ranked = row("ease-shop", 0, 0.5) | {"metrics": {"valid": {}, "test": {"ndcg@10": 0.3}}}
    ranked = {key: value for key, value in ranked.items() if key not in ("cohorts", "reliability")}
    published = [
        {"dataset": "shop", "model": "DIN", "metric": "auc", "value": 0.66, "source": "A 2020"},
        {"dataset": "shop", "model": "EASE", "metric": "ndcg@10", "value": 0.31, "source": "B 2021"},
    ]
    (tmp_path / "recipes").mkdir()
    for number, record in enumerate([ranked, *DIN]):
        (tmp_path / "recipes" / f"{number}.json").write_text(json.dumps(record))
    (tmp_path / "published.json").write_text(json.dumps(published))
    page = markdown(tmp_path)
    ranking, clicks = page.split("## shop\n")[1].split("## shop: clicks\n")
    assert "| ease-shop | ndcg@10 | 0.3000 | 0.3100 | -0.0100 | B 2021 |" in ranking
    assert "| din-shop | auc | 0.6500 | 0.6600 | -0.0100 | A 2020 |" in clicks
    assert "macrorec run ease-shop --seed 0" in ranking and "din" not in ranking
    assert pictures(tmp_path).keys() == {"reliability-shop"}
