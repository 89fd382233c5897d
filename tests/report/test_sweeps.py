import pytest
from tests.report.results_of_clicks import row

from macrorec.report.sweeps import file_name, section, summed

MORE = {"machine": {}, "versions": {}, "commit": None}


def test_values_are_means_over_seeds_and_the_page_shows_them():
    runs = [
        (tau, row("din-shop", seed, auc, **MORE)) for tau, seed, auc in ((0.1, 0, 0.5), (0.1, 1, 0.6), (3.0, 0, 0.7))
    ]
    command = "macrorec sweep din-shop --key model.tau --values 0.1,3 --seeds 0,1"
    got = summed("din-shop", "model.tau", runs, command)
    assert [entry["value"] for entry in got["values"]] == [0.1, 3.0]
    assert got["values"][0]["test"]["auc"] == {"mean": pytest.approx(0.55), "deviation": pytest.approx(0.05 * 2**0.5)}
    assert got["values"][1]["valid"]["auc"] == {"mean": 0.7, "deviation": None}
    assert (got["metric"], got["seeds"]) == ("auc", [0, 1])
    assert section([got]) == (
        "### din-shop: model.tau\n\n"
        "| model.tau | auc, valid | auc, test |\n| --- | --- | --- |\n"
        "| 0.1 | 0.5500 ± 0.0707 | 0.5500 ± 0.0707 |\n| 3.0 | 0.7000 | 0.7000 |\n\n"
        "Seeds 0, 1.\n\n![auc over model.tau](plots/sweep-din-shop-model.tau.svg)\n\n"
        f"```\n{command}\n```\n"
    )


def test_names_of_files_hold_no_odd_characters():
    assert file_name("din-shop model.dims=[8, 4]", "features.users.n") == "din-shop-model.dims-8-4-features.users.n"


def test_of_three_ways_the_first_metrics_have_columns():
    names = [f"{name}{way}" for name in ("hr@10", "ndcg@10", "hr@50") for way in ("", ":re-engagement", ":discovery")]
    more = {**MORE, "metrics": {"valid": {}, "test": dict.fromkeys(names, 0.5)}, "config": {"train": {"monitor": None}}}
    page = section([summed("swgcn-shop", "model.dropout", [(0.1, row("swgcn-shop", 0, 0.5, **more))], "sweep")])
    assert page.splitlines()[2] == "| model.dropout | " + " | ".join(f"{name}, test" for name in names[:6]) + " |"
