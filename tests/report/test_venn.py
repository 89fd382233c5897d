import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest

from macrorec.regions import TOLD
from macrorec.report import venn

SVG = "{http://www.w3.org/2000/svg}"
RING = np.stack([np.cos(np.linspace(0, 2 * np.pi, 120)), np.sin(np.linspace(0, 2 * np.pi, 120))], axis=1)


def frame(*rows):
    """Regions from (behaviours, items, events, weight)."""
    columns = [(names.split(), items, events, weight, [weight] * len(events)) for names, items, events, weight in rows]
    return pl.DataFrame(columns, schema=TOLD, orient="row")


THREE = frame(("view cart buy", 2, [4, 2, 2], 0.3), ("view", 40, [50], 0.0123456), ("buy", 1, [1], None))


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


def fills(svg):
    """How often each colour fills something."""
    styles = [element.get("style", "") for element in ET.fromstring(svg).iter(f"{SVG}path")]
    colours = [style.split("fill: ")[1].split(";")[0] for style in styles if "fill: #" in style]
    return {colour: colours.count(colour) for colour in colours}


def test_three_circles_have_seven_regions_with_counts_and_weights():
    words = texts(venn.drawn(THREE, ["view", "cart", "buy"], "u7"))
    assert {"u7", "view", "cart", "buy", "mean edge weight", "0.3", "0.0123"} <= set(words)
    assert sorted(word for word in words if word in ("0", "1", "2", "40")) == ["0", "0", "0", "0", "1", "2", "40"]
    assert fills(venn.drawn(THREE, ["view", "cart", "buy"], "u7"))["#d9d9d9"] == 1, "the bought one has no weight"


def test_the_heaviest_region_is_the_darkest():
    dark = "#662506"
    assert dark in fills(venn.drawn(THREE, ["view", "cart", "buy"], ""))
    light = THREE.with_columns(weight=pl.Series([0.1, 0.3, 0.2]))
    one, other = (venn.drawn(regions, ["view", "cart", "buy"], "") for regions in (THREE, light))
    assert fills(one) != fills(other)


def test_two_circles():
    regions = frame(("view buy", 3, [3, 3], 0.5), ("view", 9, [9], 0.1))
    words = texts(venn.drawn(regions, ["view", "buy"], "u7"))
    assert [word for word in words if word in ("3", "9", "0")].count("0") == 1
    assert "cart" not in words


@pytest.mark.parametrize("names", [["buy"], ["view", "cart", "share", "buy"]])
def test_bars_for_any_other_number_the_longest_on_top(names):
    regions = frame(*((f"{name} buy" if name != "buy" else "buy", n, [n], None) for n, name in enumerate(names, 1)))
    svg = venn.drawn(regions, names, "u7")
    words = texts(svg)
    assert {*names, "events per item", "items"} <= set(words)
    assert [word.split()[0] for word in words if "(" in word] == [str(n + 1) for n in range(len(names))]


def test_names_are_plain_text_and_equal_regions_give_equal_bytes():
    odd = ["$a_b$ & <view>", "買う", "x" * 60]
    regions = frame(*((name.split()[0], 1, [1], None) for name in odd)).with_columns(
        behaviors=pl.Series([[name] for name in odd])
    )
    svg = venn.drawn(regions, odd, "$u$")
    assert svg == venn.drawn(regions, odd, "$u$")
    assert {"$u$", "$a_b$ & <view>", "買う", "x" * 25 + "..."} <= set(texts(svg))


def test_an_outline_holds_what_all_circles_share():
    """The lens of two circles 1.2 apart: area 2 arccos(.6) - 1.2 sqrt(1 - .36), by the shoelace formula."""
    x, y = venn.outline(venn.CENTRES[2], RING).T
    area = 0.5 * abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    assert area == pytest.approx(2 * np.arccos(0.6) - 1.2 * 0.8, rel=0.02)


@pytest.mark.parametrize("n", [2, 3])
def test_a_label_stands_inside_its_region(n):
    for own in [(0,), (1,), (0, 1), *([(2,), (0, 2), (1, 2), (0, 1, 2)] if n == 3 else [])]:
        place = np.array(venn.label_place(venn.CENTRES[n], own))
        inside = np.linalg.norm(venn.CENTRES[n] - place, axis=1) < 1
        assert set(np.flatnonzero(inside)) == set(own)
