import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.report.results_of_clicks import row

from macrorec.report import plots
from macrorec.report.results import pictures

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    """All words of a plot; it must be well formed."""
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


def sweep(values, key="model.tau"):
    valid, test = {"auc": {"mean": 0.6, "deviation": 0.01}}, {"auc": {"mean": 0.5, "deviation": None}}
    entries = [{"value": value, "valid": valid, "test": test} for value in values]
    return {"key": key, "metric": "auc", "values": entries}


def test_equal_results_give_equal_bytes():
    assert plots.sweep(sweep([0.1, 1.0])) == plots.sweep(sweep([0.1, 1.0]))
    assert "matplotlib" not in plots.sweep(sweep([0.1, 1.0])).split("<defs>")[0].lower()


@pytest.mark.parametrize(
    ("values", "shown", "hidden"),
    [
        ([0.1, 0.5, 1.0], ["0.2", "0.6"], ["10"]),  # narrow: a linear axis
        ([0.1, 1.0, 10.0], ["model.tau", "auc", "valid", "test"], ["5.0"]),  # wide: a logarithmic one
        ([False, True], ["False", "True"], ["0.2"]),
        (["a", "b"], ["a", "b"], []),
    ],
)
def test_a_sweep_has_the_axis_of_its_values(values, shown, hidden):
    words = texts(plots.sweep(sweep(values)))
    assert set(shown) <= set(words)
    assert not set(hidden) & set(words)


def test_bins_are_pooled_by_their_impressions():
    """Seed 0 has no positive among 50 in the upper bin, seed 1 has 10, a third run 30 of 150."""
    third = row("din-shop", 1, 0.6)
    third["reliability"][2] |= {"predicted": 0.4, "n": 150}
    runs = [row("din-shop", 0, 0.6), row("din-shop", 1, 0.6), third]
    assert plots.pooled(runs) == [(0.1, 0.0), (pytest.approx((0.3 * 100 + 0.4 * 150) / 250), (0 + 10 + 30) / 250)]
    words = texts(plots.reliability({"din-shop": runs, "fm-shop": runs[:1]}))
    assert {"din-shop", "fm-shop", "calibrated", "share of positives"} <= set(words)


def test_a_colour_per_recipe_and_a_line_per_seed():
    runs = [row("din-shop", seed, 0.6, curve=[{"epoch": n, "auc": 0.5} for n in range(9)]) for seed in (0, 1)]
    svg = plots.curves(runs, "auc")
    assert texts(svg).count("din-shop") == 1
    assert svg.count("stroke: #1f77b4") == 3  # two lines and the legend


def test_the_plots_on_file_are_those_that_the_results_make():
    """By name and by words: another version of matplotlib may draw other curves."""
    made = pictures(ROOT / "results")
    on_file = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "plots").glob("*.svg")}
    assert on_file.keys() == made.keys()
    for name, svg in made.items():
        assert texts(on_file[name]) == texts(svg), name
