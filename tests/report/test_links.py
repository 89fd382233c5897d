"""The section of a data set of links."""

from pathlib import Path

from tests.report.test_results import row, write

from macrorec.report.links import section
from macrorec.report.results import markdown

BOTH = ("auc_roc", "auc_pr")


def linked(recipe, seed, values, model, **more):
    names = [name + probe for probe in ("", "_hadamard", "_concat") for name in BOTH]
    own = row(recipe, seed, 0.0, model, counts={"pairs": 2000, "positives": 1000, "users": 15}, **more)
    own["config"] = {"model": {"name": model}, "eval": {"protocol": "links"}}
    own |= {"mask": "none", "pairs": {"test": "f" * 64}}
    return {**own, "metrics": {"valid": {}, "test": dict(zip(names, values, strict=False))}}


RUNS = [
    linked("gebe-wiki", 0, [0.5, 0.6, 0.7, 0.8, 0.9, 0.95], "gebe"),
    linked("gebe-wiki", 1, [0.7, 0.6, 0.7, 0.8, 0.9, 0.95], "gebe"),
    linked("popular-wiki", 0, [0.4, 0.45], "popular"),
]
KNOWN = [
    {"dataset": "wiki", "model": "GEBE", "metric": "auc_roc", "value": 0.8, "source": "A 2022"},
    {"dataset": "wiki", "model": "BiNE", "metric": "auc_roc", "value": 0.3, "source": "A 2022"},
    {"dataset": "wiki", "model": "BiNE", "metric": "auc_pr", "value": 0.25, "source": "A 2022"},
]

TEXT = """## wiki: links

Areas under the curves of true against false positives and of precision against recall, by direct scores, and by \
logistic regression (C = 0.001) on u * v and on [u; v], fitted to pairs of train. Models without vectors have direct \
scores only. Rules that nothing was learned for stand among the rest.

| recipe | auc_roc | auc_pr | auc_roc, hadamard | auc_pr, hadamard | auc_roc, concat | auc_pr, concat | seeds \
| train s | peak MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| gebe-wiki | 0.6000 ± 0.1414 | 0.6000 ± 0.0000 | 0.7000 ± 0.0000 | 0.8000 ± 0.0000 | 0.9000 ± 0.0000 \
| 0.9500 ± 0.0000 | 0, 1 | 1.5 | 300 |
| popular-wiki | 0.4000 | 0.4500 |  |  |  |  | 0 | 1.5 | 300 |

2,000 pairs of test, 1,000 of them edges, pairs `ffffffffffff`; none; data `abcdef012345`.

Ours minus published, by each reading:

| recipe | metric | published | direct | hadamard | concat | source |
| --- | --- | --- | --- | --- | --- | --- |
| gebe-wiki | auc_roc | 0.8000 | -0.2000 | -0.1000 | +0.1000 | A 2022 |

| published | auc_roc | auc_pr | source |
| --- | --- | --- | --- |
| BiNE | 0.3000 | 0.2500 | A 2022 |

```
macrorec reproduce gebe-wiki --seeds 0,1
macrorec reproduce popular-wiki --seeds 0
```
"""


def test_the_whole_section_of_one_data_set() -> None:
    assert section("wiki", RUNS, KNOWN) == TEXT
    assert section("wiki", [], KNOWN[1:]).startswith("## wiki: links\n\n| published |")


def test_links_and_rankings_of_one_data_set_stand_apart(tmp_path: Path) -> None:
    files = {f"recipes__{own['recipe']}-{own['seed']}_json": own for own in [*RUNS, row("ease-wiki", 0, 0.25)]}
    page = markdown(write(tmp_path, published_json=KNOWN, **files))
    ranking, links = page.index("## wiki\n"), page.index("## wiki: links\n")
    assert TEXT in page
    assert "ease-wiki" in page[ranking:links] and "gebe-wiki" not in page[ranking:links]
    assert "ease-wiki" not in page[links:]


def test_runs_on_other_pairs_have_a_line_of_their_own() -> None:
    other = {**linked("bpr-wiki", 0, [0.5, 0.5], "bpr"), "pairs": {"test": "0" * 64}}
    text = section("wiki", [*RUNS, other], [])
    assert "pairs `000000000000`" in text
    assert "pairs `ffffffffffff`" in text
    assert "Ours minus published" not in text
