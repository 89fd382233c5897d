"""Benchmarks that measured several sizes have a table and a plot of their own."""

import json

from tests.report.test_plots import texts
from tests.report.test_results import write

from macrorec.report import plots
from macrorec.report.results import markdown, pictures
from macrorec.report.scale import of_sizes, section

POINTS = [
    {"edges": 70_969, "seconds": 0.4, "edges_per_second": 177_422, "measured": 139, "steps": 278, "loss": 0.7},
    {"edges": 9_909_018, "seconds": 61.5, "edges_per_second": 161_122, "measured": 8000, "steps": 38_708, "loss": 0.6},
]
LINE = {"name": "ccbie_scale", "value": 161_122, "unit": "edges/s", "baseline": None, "ratio": 0.9, "points": POINTS}
OTHER = {"name": "spmm", "value": 1, "unit": "s", "baseline": None, "ratio": None}


def test_the_whole_section():
    assert of_sizes([OTHER, LINE]) == [LINE]
    assert section([LINE]) == (
        """### ccbie_scale

| edges | s per epoch | edges/s | steps measured | of |
| --- | --- | --- | --- | --- |
| 70,969 | 0.4 | 177,422 | 139 | 278 |
| 9,909,018 | 61.5 | 161,122 | 8,000 | 38,708 |

![seconds per epoch over edges, ccbie_scale](plots/scale-ccbie_scale.svg)
"""
    )


def test_it_stands_on_the_page_with_its_plot(tmp_path):
    write(tmp_path, benchmarks__a_json=json.dumps(LINE), benchmarks__b_json=json.dumps(OTHER))
    page = markdown(tmp_path)
    assert (
        f"## Time of an epoch over edges\n\n{section([LINE])}" in page and "| ccbie_scale | 161,122 edges/s |" in page
    )
    assert pictures(tmp_path) == {"scale-ccbie_scale": plots.scale(LINE)}
    assert {"edges", "seconds per epoch", "ccbie_scale", "linear in edges"} <= set(texts(plots.scale(LINE)))
