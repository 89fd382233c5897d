"""Which settings mattered is told of searches with enough trials, in a table and a plot each."""

import json

import pytest
from tests.report.test_plots import texts
from tests.report.test_results import write

from macrorec.report import plots
from macrorec.report.results import markdown, pictures
from macrorec.report.searches import ENOUGH, finished, mattered, telling

SPACE = {"model.dim": [8, 16], "train.lr": {"low": 0.001, "high": 0.1, "log": True}, "model.kind": ["a"]}


def search(trials, command="macrorec tune bpr-shop", space=SPACE):
    return {
        "recipe": "bpr-shop",
        "metric": "ndcg@10",
        "space": space,
        "best": {"settings": {"model.dim": 8}, "value": 0.2},
        "budget": {"seeds": [0]},
        "spent": {"trials": len(trials), "seconds": 2.0},
        "run": {"metrics": {"test": {"ndcg@10": 0.1}}},
        "command": command,
        "trials": trials,
    }


def trial(dim, lr, value):
    return {"settings": {"model.dim": dim, "train.lr": lr, "model.kind": "a"}, "value": value}


def test_the_share_of_variance_by_hand():
    """Values 1, 2, 3, 4, 5, 6, mean 3.5, squares 17.5. dim: means 2 and 5, 6 x 1.5^2 = 13.5. lr: in order of the rate
    1, 4 | 2, 5 | 3, 6, means 2.5, 3.5, 4.5, 2 x 2 x 1 = 4. One kind tells nothing; a trial that failed is no trial."""
    rates = [0.001, 0.01, 0.1]
    trials = [trial(8, lr, n) for lr, n in zip(rates, (1, 2, 3), strict=True)]
    trials += [trial(16, lr * 1.1, n) for lr, n in zip(rates, (4, 5, 6), strict=True)]
    found = mattered(search([*trials, trial(16, 0.5, None)]))
    assert found == [("model.dim", pytest.approx(13.5 / 17.5)), ("train.lr", pytest.approx(4 / 17.5))]
    assert [share for _, share in mattered(search([trial(8, 0.1, 1), trial(16, 0.2, 1)]))] == [0, 0]


def test_only_enough_trials_of_several_settings_tell():
    trials = [trial(8 + 8 * (n % 2), 0.001 * (n + 1), n) for n in range(ENOUGH)]
    few = search([*trials[1:], trial(8, 0.1, None)])
    one = search(trials, space={"model.dim": [8, 16]})
    second, first = search(trials, "macrorec tune bpr-shop --seed 1"), search(trials)
    assert len(finished(few)) == ENOUGH - 1
    assert telling([few, second, one, first]) == {"search-bpr-shop": first, "search-bpr-shop-2": second}


def test_it_stands_on_the_page_with_its_plot(tmp_path):
    enough = search([trial(8 + 8 * (n % 2), 0.001 * (n + 1), n) for n in range(ENOUGH)])
    write(tmp_path, tuning__a_json=json.dumps(enough))
    page = markdown(tmp_path)
    assert "| bpr-shop | 20 | train.lr 89%, model.dim 1% |" in page and "(plots/search-bpr-shop.svg)" in page
    drawn = plots.search("ndcg@10", finished(enough), mattered(enough))
    assert pictures(tmp_path) == {"search-bpr-shop": drawn}
    assert {"train.lr: 89%", "model.dim: 1%", "ndcg@10 on valid"} <= set(texts(drawn))


def test_choices_that_are_no_numbers_stand_side_by_side():
    trials = [{"settings": {"model.kind": kind, "model.bias": kind == "a"}, "value": 1.0} for kind in "ab$"]
    words = texts(plots.search("auc", trials, [("model.kind", 0.5), ("model.bias", 0.25)]))
    assert {"a", "b", "$", "False", "True", "model.kind: 50%", "model.bias: 25%"} <= set(words)
