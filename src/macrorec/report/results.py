"""What did we measure, beside what was published? ``docs/results.md``, made from the files under ``results/`` alone.

    results/<topic>/<recipe>-<seed>.json   one finished run: ``macrorec run NAME --out FILE``
    results/tuning/<recipe>.json           one search: ``macrorec tune NAME --out FILE``
    results/benchmarks/<name>.json         what a benchmark printed, one JSON object per line
    results/published.json                 published values: dataset, model, metric, value, source

Equal files give an equal text, to the byte.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from macrorec.errors import DataError
from macrorec.restore import summary
from macrorec.store import Run

HEAD = """# Results

Made by `macrorec results` from the files under `results/`; edit those, not this. Each row gives the mean over seeds,
and the standard deviation behind ± where there are several. Test was read once per run, after everything was chosen.
The gap is ours minus published.
"""

Row = Mapping[str, Any]

BENCHMARK_KEYS = ("name", "value", "unit", "baseline", "ratio", "machine", "command")
"""What has a column of its own among the benchmarks; other numbers of a line stand together."""
CURVE_POINTS = 8
"""Points of a curve on the page; the file has them all."""


def record(run: Run, recipe: str, command: str) -> dict[str, Any]:
    """What is kept of a finished run: everything but the weights, the losses and the per-user values."""
    origin = run.provenance
    epochs = run.history.get("fit", {}).get("epochs", [])
    kept = ("mask", "counts", "machine", "versions", "commit", "finished")
    return {
        **summary(run, recipe),
        "run": run.name,
        "command": command,
        "data": origin["data"]["digest"],
        "rows": origin["data"]["report"],
        **{key: origin[key] for key in kept},
        "config": run.config,
        "curve": [{"epoch": epoch["epoch"], **epoch["metrics"]} for epoch in epochs if epoch["metrics"]],
    }


def markdown(folder: Path) -> str:
    """The text of ``docs/results.md`` for the results in ``folder``. Raises DataError for a file that is no result."""
    runs, searches = _runs(folder), _read(folder / "tuning")
    published = _read_file(folder / "published.json") if (folder / "published.json").is_file() else []
    datasets = sorted({_dataset(row) for row in runs} | {row["dataset"] for row in published})
    sections = [HEAD]
    for dataset in datasets:
        ours = [row for row in runs if _dataset(row) == dataset]
        known = [row for row in published if row["dataset"] == dataset]
        sections.append(_dataset_section(dataset, ours, known))
    curves = [row for row in runs if len(row.get("curve", [])) >= CURVE_POINTS]
    if curves:
        sections.append(_curve_section(curves))
    if searches:
        sections.append(_search_section(searches))
    benchmarks = [line for path in _paths(folder / "benchmarks") for line in _lines(path)]
    if benchmarks:
        sections.append(_benchmark_section(benchmarks))
    return "\n".join(sections)


# --- sections --------------------------------------------------------------------------------------------------------


def _dataset_section(dataset: str, runs: Sequence[Row], published: Sequence[Row]) -> str:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in runs:
        groups[_label(row)].append(row)
    text = f"## {dataset}\n\n"
    if groups:
        metrics = list(dict.fromkeys(metric for row in runs for metric in row["metrics"]["test"]))
        head = ["recipe", *metrics, "seeds", "train s", "peak MiB"]
        body = [[label, *_cells(rows, metrics)] for label, rows in sorted(groups.items())]
        text += _table(head, body) + "\n" + _protocol(runs)
    compared = _compared(groups, published)
    if compared:
        text += _table(["recipe", "metric", "ours", "published", "gap", "source"], compared) + "\n"
    names = {_model(rows[0]) for rows in groups.values()}
    others = [row for row in published if row["model"].lower() not in names]
    if others:
        text += _published(others) + "\n"
    if groups:
        commands = sorted({row["command"] for row in runs})
        text += "```\n" + "\n".join(commands) + "\n```\n"
    return text


def _cells(rows: Sequence[Row], metrics: Iterable[str]) -> list[str]:
    values = [_spread([row["metrics"]["test"][m] for row in rows if m in row["metrics"]["test"]]) for m in metrics]
    seconds = statistics.mean(row["seconds"]["train"] for row in rows)
    peak = max(row["peak_rss_bytes"] for row in rows) / 2**20
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    return [*values, seeds, f"{seconds:.1f}", f"{peak:,.0f}"]


def _protocol(runs: Sequence[Row]) -> str:
    lines = []
    for mask in sorted({str(row["mask"]) for row in runs}):
        own = [row for row in runs if str(row["mask"]) == mask]
        users = ", ".join(sorted({f"{row['counts'].get('users', 0):,}" for row in own}))
        data = ", ".join(sorted({f"`{row['data'][:12]}`" for row in own}))
        lines.append(f"{users} users in test; {mask}; data {data}.")
    return "\n".join(lines) + "\n\n"


def _compared(groups: Mapping[str, Sequence[Row]], published: Sequence[Row]) -> list[list[str]]:
    """Each published value beside each of our recipes, and variants of it, that measured the same of the same model."""
    result = []
    for known in published:
        for label, rows in sorted(groups.items()):
            values = [r["metrics"]["test"][known["metric"]] for r in rows if known["metric"] in r["metrics"]["test"]]
            if values and _model(rows[0]) == known["model"].lower():
                ours = statistics.mean(values)
                gap = f"{ours - known['value']:+.4f}"
                result.append([label, known["metric"], f"{ours:.4f}", f"{known['value']:.4f}", gap, known["source"]])
    return result


def _published(rows: Sequence[Row]) -> str:
    """What was published of models that we have no result of: a row per model and source."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        values[row["model"], row["source"]][row["metric"]] = row["value"]
    body = [
        [model, *(f"{own[metric]:.4f}" if metric in own else "" for metric in metrics), source]
        for (model, source), own in values.items()
    ]
    return _table(["published", *metrics, "source"], body)


def _curve_section(runs: Sequence[Row]) -> str:
    """Valid over epochs, at evenly spread validations, the last among them."""
    body = []
    for row in sorted(runs, key=lambda row: (_label(row), row["seed"])):
        points = row["curve"]
        metric = row["config"]["train"]["monitor"] or next(key for key in points[0] if key != "epoch")
        chosen = [points[round(n * (len(points) - 1) / (CURVE_POINTS - 1))] for n in range(CURVE_POINTS)]
        told = ", ".join(f"{point['epoch']}: {point[metric]:.4f}" for point in chosen)
        body.append([_label(row), str(row["seed"]), metric, told])
    return "## Valid over epochs\n\n" + _table(["recipe", "seed", "metric", "epoch: value"], body)


def _search_section(searches: Sequence[Row]) -> str:
    body = []
    for row in sorted(searches, key=lambda row: str(row["command"])):
        settings = ", ".join(f"{key} = {_short(value)}" for key, value in row["best"]["settings"].items())
        budget = f"{row['spent']['trials']} trials, {row['spent']['seconds']:.0f} s"
        test = ", ".join(f"{name} {value:.4f}" for name, value in row["run"]["metrics"]["test"].items())
        body.append([row["recipe"], f"{row['metric']} {row['best']['value']:.4f}", settings, budget, test])
    head = ["recipe", "best on valid", "settings", "budget", "refitted, on test"]
    commands = "\n".join(sorted({row["command"] for row in searches}))
    return f"## Settings chosen on valid\n\n{_table(head, body)}\n```\n{commands}\n```\n"


def _benchmark_section(lines: Sequence[Row]) -> str:
    body = []
    for line in sorted(lines, key=lambda line: (str(line["name"]), str(line.get("command")))):
        baseline = dict(line.get("baseline") or {})
        if "value" in baseline and "name" in baseline:
            baseline = {baseline.pop("name") + ":": baseline.pop("value"), **baseline}
        ratio = "" if line.get("ratio") is None else f"{line['ratio']:.2f}"
        machine = line.get("machine", {})
        place = machine.get("gpu") or f"{machine.get('cpu', '')}, {machine.get('cores', '')} cores"
        command = line.get("command", f"python -m benchmarks.{line['name']}")
        value = f"{_short(line['value'])} {line['unit']}"
        more = {key: line[key] for key in line if key not in BENCHMARK_KEYS and isinstance(line[key], int | float)}
        body.append([line["name"], value, _told(baseline), ratio, _told(more), place, f"`{command}`"])
    head = ["name", "value", "baseline", "ratio", "also", "machine", "command"]
    return "## Benchmarks\n\n" + _table(head, body)


def _told(values: Row) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in values.items())


# --- files and cells -------------------------------------------------------------------------------------------------


def _runs(folder: Path) -> list[Row]:
    """All results of runs below ``folder``, whatever their topic."""
    topics = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [
        row
        for topic in topics
        if topic.name not in ("tuning", "benchmarks")
        for row in _read(topic)
        if "recipe" in row and "metrics" in row
    ]


def _read(folder: Path) -> list[Row]:
    return [_read_file(path) for path in _paths(folder)]


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def _read_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def _lines(path: Path) -> list[Row]:
    """The objects of a file that holds one JSON object, or one per line."""
    try:
        text = path.read_text(encoding="utf-8")
        try:
            whole = json.loads(text)
            return whole if isinstance(whole, list) else [whole]
        except json.JSONDecodeError:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def _label(row: Row) -> str:
    """The recipe, and what its command sets."""
    words = str(row["command"]).split()
    changed = [words[n + 1].strip("'") for n, word in enumerate(words[:-1]) if word == "--set"]
    return " ".join([str(row["recipe"]), *changed])


def _model(row: Row) -> str:
    return str(row["config"]["model"]["name"])


def _dataset(row: Row) -> str:
    """What follows the model's name in the recipe's."""
    recipe, model = str(row["recipe"]), _model(row)
    return recipe.removeprefix(model + "-")


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"
