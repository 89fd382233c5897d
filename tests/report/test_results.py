import json
from pathlib import Path
from typing import Any

import pytest

from macrorec.errors import DataError
from macrorec.report.results import HEAD, markdown

ROOT = Path(__file__).resolve().parents[2]


def row(recipe: str, seed: int, ndcg: float, model: str = "ease", sets: str = "", **more: Any) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "seed": seed,
        "metrics": {"valid": {}, "test": {"ndcg@10": ndcg}},
        "seconds": {"train": 1.5, "epoch": 1.5, "evaluate": 0.1},
        "peak_rss_bytes": 300 * 2**20,
        "command": f"macrorec run {recipe} {sets}--seed {seed}",
        "data": "abcdef0123456789",
        "mask": "items of a user's buy in train are masked",
        "counts": {"users": 1234},
        "config": {"model": {"name": model}},
        **more,
    }


def write(folder: Path, **files: Any) -> Path:
    for name, value in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def test_the_whole_page_of_a_small_folder(tmp_path: Path) -> None:
    benchmark = {
        "name": "spmm",
        "value": 12.5,
        "unit": "ms",
        "baseline": {"name": "torch.sparse", "value": 50.0},
        "ratio": 4.0,
        "threads": 4,
        "command": "python -m benchmarks.spmm 64",
        "machine": {"cpu": "A CPU", "cores": 4, "gpu": None},
    }
    search = {
        "recipe": "ease-shop",
        "metric": "ndcg@10",
        "space": {"model.l2": {"low": 1.0, "high": 1e4, "log": True}},
        "trials": [{"settings": {"model.l2": 123.456}, "value": 0.25}],
        "best": {"value": 0.25, "settings": {"model.l2": 123.456}},
        "spent": {"trials": 20, "seconds": 31.4},
        "budget": {"seeds": [0]},
        "run": {"metrics": {"test": {"ndcg@10": 0.2}}},
        "command": "macrorec tune ease-shop --trials 20",
    }
    known = [
        {"dataset": "shop", "model": "EASE", "metric": "ndcg@10", "value": 0.31, "source": "A | B 2020"},
        {"dataset": "shop", "model": "Other", "metric": "ndcg@10", "value": 0.5, "source": "C 2021"},
    ]
    write(
        tmp_path,
        recipes__b_json=row("ease-shop", 1, 0.2),
        recipes__a_json=row("ease-shop", 0, 0.4),
        sweep__c_json=row("ease-shop", 0, 0.1, sets="--set model.l2=1.0 "),
        benchmarks__spmm_json=json.dumps(benchmark),
        tuning__ease_json=search,
        published_json=known,
    )
    assert markdown(tmp_path) == (
        HEAD
        + """
## shop

| recipe | ndcg@10 | seeds | train s | peak MiB |
| --- | --- | --- | --- | --- |
| ease-shop | 0.3000 ± 0.1414 | 0, 1 | 1.5 | 300 |
| ease-shop model.l2=1.0 | 0.1000 | 0 | 1.5 | 300 |

1,234 users in test; items of a user's buy in train are masked; data `abcdef012345`.

| recipe | metric | ours | published | gap | source |
| --- | --- | --- | --- | --- | --- |
| ease-shop | ndcg@10 | 0.3000 | 0.3100 | -0.0100 | A \\| B 2020 |
| ease-shop model.l2=1.0 | ndcg@10 | 0.1000 | 0.3100 | -0.2100 | A \\| B 2020 |

| published | ndcg@10 | source |
| --- | --- | --- |
| Other | 0.5000 | C 2021 |

```
macrorec run ease-shop --seed 0
macrorec run ease-shop --seed 1
macrorec run ease-shop --set model.l2=1.0 --seed 0
```

## Settings chosen on valid

| recipe | best on valid | settings | budget | refitted, on test |
| --- | --- | --- | --- | --- |
| ease-shop | ndcg@10 0.2500 | model.l2 = 123.5 | 20 trials, 31 s | ndcg@10 0.2000 |

```
macrorec tune ease-shop --trials 20
```

## Benchmarks

| name | value | baseline | ratio | also | machine | command |
| --- | --- | --- | --- | --- | --- | --- |
| spmm | 12.5 ms | torch.sparse: 50 | 4.00 | threads 4 | A CPU, 4 cores | `python -m benchmarks.spmm 64` |
"""
    )


def test_the_page_depends_on_content_and_not_on_names_or_order(tmp_path: Path) -> None:
    rows = [row("ease-shop", seed, 0.1 * seed) for seed in (1, 2, 3)]
    one = write(tmp_path / "one", r__a_json=rows[0], r__b_json=rows[1], r__c_json=rows[2])
    two = write(tmp_path / "two", r__a_json=rows[2], r__b_json=rows[1], r__c_json=rows[0])
    assert markdown(one) == markdown(two)


def test_several_lines_of_one_benchmark_and_none_at_all(tmp_path: Path) -> None:
    lines = "\n".join(
        json.dumps({"name": name, "value": 1, "unit": "s", "baseline": None, "ratio": None, "machine": {"gpu": "H100"}})
        for name in ("b", "a")
    )
    page = markdown(write(tmp_path, benchmarks__x_json=lines))
    assert page.index("| a | 1 s |  |  |  | H100 |") < page.index("| b | 1 s |  |  |  | H100 |")
    assert markdown(tmp_path / "none") == HEAD


@pytest.mark.parametrize("name", ["published_json", "recipes__a_json", "benchmarks__a_json"])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: "{"})
    with pytest.raises(DataError, match="is not JSON"):
        markdown(tmp_path)


def test_the_page_on_file_is_the_one_that_its_results_make() -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == markdown(ROOT / "results")


def test_a_run_with_many_validations_has_its_curve_on_the_page(tmp_path: Path) -> None:
    points = [{"epoch": 5 * n, "recall@20": 0.5, "ndcg@20": n / 100} for n in range(1, 16)]
    config = {"model": {"name": "lightgcn"}, "train": {"monitor": "ndcg@20"}}
    long = row("lightgcn-shop", 0, 0.1, config=config, curve=points)
    short = row("lightgcn-shop", 1, 0.1, config=config, curve=points[:7])
    page = markdown(write(tmp_path, r__a_json=long, r__b_json=short))
    assert page.partition("## Valid over epochs\n\n")[2] == (
        "| recipe | seeds | best ndcg@20 | at epoch |\n| --- | --- | --- | --- |\n"
        "| lightgcn-shop | 0 | 0.1500 | 75 |\n\n"
        "![ndcg@20 of shop over epochs](plots/curve-shop-ndcg-20.svg)\n"
    )
    assert "Valid over epochs" not in markdown(write(tmp_path / "short", r__b_json=short))
