import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from macrorec.errors import ConfigError, DataError
from macrorec.report import maps

RANDOM = np.random.default_rng(3)
GROUP = np.repeat([0, 1, 2, -1], [30, 20, 10, 5])
STRENGTH = np.eye(4)[np.where(GROUP < 0, 3, GROUP)] + 0.1 * RANDOM.random((65, 4))


def points(svg: str) -> dict[str, int]:
    """How many marks of each colour."""
    root = ET.fromstring(svg)
    uses = [use.get("style", "") for use in root.iter("{http://www.w3.org/2000/svg}use")]
    colours = [match[1] for style in uses if (match := re.search(r"fill: (#\w+); fill-opacity", style))]
    return {colour: colours.count(colour) for colour in colours}


def test_every_item_with_a_cluster_is_drawn_in_the_colour_of_its_cluster() -> None:
    svg = maps.drawn(STRENGTH, GROUP, "pca", seed=0)
    assert sorted(points(svg).values()) == [11, 21, 31], "and one of each in the legend"
    words = [text.text for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"0 (30)", "1 (20)", "2 (10)", "cluster (items)", "first principal component"} <= set(words)
    assert svg == maps.drawn(STRENGTH, GROUP, "pca", seed=0)


def test_principal_components_are_those_of_a_decomposition_by_hand() -> None:
    centred = STRENGTH - STRENGTH.mean(0)
    left, value, _ = np.linalg.svd(centred, full_matrices=False)
    found = maps.projected(STRENGTH, "pca", seed=0)
    np.testing.assert_allclose(np.abs(found), np.abs(left[:, :2] * value[:2]), atol=1e-9)


def test_tsne_keeps_near_what_is_near_and_is_seeded() -> None:
    one, same = (maps.projected(STRENGTH, "tsne", seed=1) for _ in range(2))
    assert (one == same).all() and one.shape == (65, 2)
    nearest = [np.argsort(((one - place) ** 2).sum(1))[1] for place in one]
    assert (GROUP[nearest] == GROUP).mean() > 0.9


def test_many_items_are_sampled_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MOST", 20)
    rows = maps.chosen(GROUP, 0)
    assert len(set(rows.tolist())) == 20 and (GROUP[rows] >= 0).all()
    assert (rows == maps.chosen(GROUP, 0)).all() and (rows != maps.chosen(GROUP, 1)).any()
    assert "20 of 60 items" in maps.drawn(STRENGTH, GROUP, "pca", seed=0)


def test_odd_corners() -> None:
    assert maps.projected(np.ones((4, 3)), "pca", seed=0).tolist() == [[0, 0]] * 4
    assert maps.projected(np.arange(4.0)[:, None], "pca", seed=0)[:, 1].tolist() == [0] * 4
    many = np.arange(60) % 30
    assert "cluster (items); 18 more" in maps.drawn(np.eye(30)[many], many, "pca", seed=0)
    with pytest.raises(DataError, match="2 items have a cluster: there is no map to draw"):
        maps.drawn(STRENGTH[:3], np.array([0, 1, -1]), "pca", seed=0)
    with pytest.raises(ConfigError, match="projection is 'umap'; allowed are pca, tsne"):
        maps.projected(STRENGTH, "umap", seed=0)
