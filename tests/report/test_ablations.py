"""Variants of one setting stand beside the whole, seed by seed, in a table and a plot."""

from tests.report.test_plots import texts
from tests.report.test_results import row as written
from tests.report.test_results import write

from macrorec.report import plots
from macrorec.report.ablations import WHOLE, section, studies
from macrorec.report.results import markdown, pictures


def run(seed, value, *changes, recipe="bpr-shop", monitor="ndcg@10"):
    sets = "".join(f" --set {change}" for change in changes)
    return {
        "recipe": recipe,
        "seed": seed,
        "command": f"macrorec run {recipe}{sets} --seed {seed}",
        "config": {"train": {"monitor": monitor}},
        "metrics": {"test": {"hr@10": 9.0, "ndcg@10": value}},
    }


RUNS = [
    run(1, 0.40),
    run(0, 0.20),
    run(0, 0.25, "model.l2=1"),
    run(1, 0.40, "model.l2=1"),
    run(1, 0.10, "model.dim=8"),
    run(0, 0.90, "model.dim=8", "model.l2=1"),
    run(2, 0.90, "model.dim=9"),
]


def test_the_whole_section():
    """A variant of two settings is none; nor is one of a seed that the whole lacks. Seed 1 alone: .10 - .40."""
    (study,) = studies(RUNS)
    assert study["values"] == {WHOLE: {0: 0.2, 1: 0.4}, "model.dim=8": {1: 0.1}, "model.l2=1": {0: 0.25, 1: 0.4}}
    assert list(study["values"]) == [WHOLE, "model.dim=8", "model.l2=1"]
    assert section([study]) == (
        """### bpr-shop

| with | ndcg@10 on test | minus the whole, same seeds | seeds |
| --- | --- | --- | --- |
| the whole | 0.3000 ± 0.1414 |  | 0, 1 |
| model.dim=8 | 0.1000 | -0.3000 | 1 |
| model.l2=1 | 0.3250 ± 0.1061 | +0.0250 | 0, 1 |

![ndcg@10 of bpr-shop on test, and with one setting changed](plots/ablation-bpr-shop.svg)

```
macrorec reproduce bpr-shop --ablations --seeds 0,1
```
"""
    )


def test_one_variant_is_no_study_and_what_nobody_watched_is_the_first_metric():
    assert studies([run(0, 0.2), run(0, 0.3, "model.dim=8")]) == []
    assert studies([run(0, 0.3, "model.dim=8"), run(0, 0.3, "model.l2=1")]) == []
    runs = [run(0, 0.2, *changes, monitor=None) for changes in ((), ("model.dim=8",), ("model.l2=1",))]
    assert [study["metric"] for study in studies(runs)] == ["hr@10"]


def test_the_plot_names_what_was_changed():
    words = texts(plots.ablation(studies(RUNS)[0]))
    assert {"the whole", "model.dim=8", "model.l2=1", "ndcg@10 on test"} <= set(words)


def test_it_stands_on_the_page_with_its_plot(tmp_path):
    sets = ("", "--set model.l2=1 ", "--set model.dim=8 ")
    write(tmp_path, **{f"recipes__{n}_json": written("ease-shop", 0, 0.1 * n, sets=own) for n, own in enumerate(sets)})
    page = markdown(tmp_path)
    assert "## Ablations\n\n### ease-shop\n" in page and "| model.dim=8 | 0.2000 | +0.2000 | 0 |" in page
    assert set(pictures(tmp_path)) == {"ablation-ease-shop"}
