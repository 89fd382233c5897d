from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.small_runs import config, write_log

from macrorec.data.log import Behavior
from macrorec.data.sources.source import Source
from macrorec.errors import ConfigError
from macrorec.files import write_json
from macrorec.models.ease import EASE
from macrorec.report import edges, plots
from macrorec.report.edges import BINS, bins, counts, section, spread
from macrorec.report.results import markdown, pictures
from macrorec.run import run


def test_quantiles_of_known_weights():
    told = spread(np.arange(101) / 100)
    assert told["edges"] == 101
    assert told["mean"] == pytest.approx(0.5)
    assert told["quantiles"] == pytest.approx([0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    assert spread(np.empty(0)) == {"edges": 0, "mean": None, "deviation": None, "quantiles": [None] * 7}


def test_a_weight_times_the_user_s_edges_is_one_where_it_says_nothing():
    weights, sizes = np.array([0.25] * 4 + [0.5, 0.5, 1.0]), np.array([4] * 4 + [2, 2, 1])
    assert edges.over_even(weights, sizes) == [1.0, 1.0]
    assert edges.over_even(np.array([0.1, 0.3, 0.6]), np.array([3, 3, 3])) == pytest.approx([0.36, 1.71])
    assert edges.over_even(np.empty(0), np.empty(0)) == [None, None]


def test_narrow_weights_have_even_bins_and_wide_ones_logarithmic():
    even, wide = bins(np.array([0.2, 0.5, 0.6])), bins(np.array([0.0, 1e-9, 1e-3, 1e-3, 1.0]))
    assert (len(even), even[0], even[-1]) == (BINS + 1, 0.2, 0.6)
    np.testing.assert_allclose(np.diff(even), 0.4 / BINS)
    assert wide[[0, -1]] == pytest.approx([1e-6, 1.0])
    np.testing.assert_allclose(wide[1:] / wide[:-1], 10 ** (6 / BINS))
    assert counts(np.array([0.0, 1e-9, 1e-3, 1.0]), wide)[0] == 2, "what is less counts in the first"
    assert sum(counts(np.array([0.0, 1e-9, 1e-3, 1.0]), wide)) == 4
    assert bins(np.array([-1.0, 0.0, 100.0]))[0] == -1.0


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [0.25]])
def test_odd_weights_have_bins(values):
    borders = bins(np.array(values, dtype=float))
    assert (np.diff(borders) > 0).all()
    assert sum(counts(np.array(values, dtype=float), borders)) == len(values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """EASE on a log of likes and buys: each user's likes are the first four, its buys all nine."""
    folder = tmp_path_factory.mktemp("edges")
    path = write_log(folder)
    head, *rows = path.read_text().splitlines()
    buys = [f"{row},buy" for row in rows]
    likes = [f"{row},like" for n, row in enumerate(rows) if n % 9 < 4]
    path.write_text("\n".join([f"{head},behavior", *buys, *likes]) + "\n")
    schema = (Behavior(name="like", role="auxiliary", mask=False), Behavior(name="buy"))
    return run(replace(config(path), source=Source(path=str(path), behaviors=schema)), name="ease-shop", root=folder)


def test_a_run_s_weights_make_a_record_a_table_and_a_plot(finished, monkeypatch):
    def weigh(self):
        return torch.full((120,), 0.25), torch.linspace(0, 1, len(self.item_E))

    monkeypatch.setattr(EASE, "edge_weights", weigh)
    found = edges.weighed(finished)
    like, buy = found["behaviors"]
    assert (like["behavior"], like["edges"], like["mean"], like["deviation"]) == ("like", 120, 0.25, 0.0)
    assert (buy["edges"], sum(buy["histogram"]), len(found["bins"])) == (240, 240, BINS + 1)
    assert (found["recipe"], found["model"], found["seed"]) == ("ease-shop", "ease", 0)
    assert found["command"] == f"macrorec weights runs/{finished.name}"
    assert section([found]) == (
        "### ease-shop\n\n"
        "| behaviour | edges | mean | deviation | least | 5% | 25% | median | 75% | 95% | largest | 5% x n "
        "| 95% x n |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| like | 120 | 0.25 | 0 | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 | 1 | 1 |\n"
        "| buy | 240 | 0.5 | 0.2899 | 0 | 0.05 | 0.25 | 0.5 | 0.75 | 0.95 | 1 | 0.4 | 7.6 |\n\n"
        f"Seed 0. {edges.MEANS}\n\n![edge weights of ease-shop by behaviour](plots/weights-ease-shop.svg)\n\n"
        f"```\nmacrorec weights runs/{finished.name}\n```\n"
    )
    svg = plots.weights(found)
    assert all(word in svg for word in (">like<", ">buy<", ">edge weight<"))
    assert svg == plots.weights(found)


def test_a_model_without_weights_says_so_in_one_line(finished):
    with pytest.raises(ConfigError, match="the model ease gives edges no weights; there is nothing to show of them"):
        edges.weighed(finished)


def test_the_plot_has_the_axis_of_its_bins():
    def drawn(values):
        borders = bins(np.array(values))
        own = {"behavior": "buy", **spread(np.array(values)), "histogram": counts(np.array(values), borders)}
        empty = {"behavior": "cart", **spread(np.empty(0)), "histogram": [0] * BINS}
        return plots.weights({"behaviors": [empty, own], "bins": borders.tolist()})

    assert ">cart<" not in drawn([0.2, 0.3])
    assert "10^{-6}" in drawn([1e-6, 1e-6, 1.0])
    assert "10^" not in drawn([0.2, 0.2, 0.3])


def test_the_page_and_its_plots_show_the_records(finished, monkeypatch, tmp_path):
    monkeypatch.setattr(EASE, "edge_weights", lambda self: (torch.rand(120), torch.rand(240)))
    (tmp_path / "weights").mkdir()
    write_json(tmp_path / "weights" / "ease-shop.json", edges.weighed(finished))
    assert "## Edge weights by behaviour\n\n### ease-shop\n" in markdown(tmp_path)
    assert list(pictures(tmp_path)) == ["weights-ease-shop"]


def test_the_plot_shows_shares_so_that_a_behaviour_of_many_edges_looks_like_one_of_few():
    values = np.linspace(0, 1, 50)
    borders = bins(values)

    def drawn(own):
        told = {"behavior": "buy", **spread(own), "histogram": counts(own, borders)}
        return plots.weights({"behaviors": [told], "bins": borders.tolist()})

    assert drawn(values) == drawn(np.tile(values, 4)) != drawn(values**2)
