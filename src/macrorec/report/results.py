"""What did we measure, beside what was published? ``docs/results.md``, made from the files under ``results/`` alone.

    results/<topic>/<recipe>-<seed>.json   one finished run: ``macrorec run NAME --out FILE``
    results/comparisons/<name>.json        two groups of runs: ``macrorec compare RUN... --against RUN --out FILE``
    results/sweeps/<name>.json             one setting: ``macrorec sweep NAME --key KEY --values A,B``
    results/coldstart/<name>.json          users held out of train: ``macrorec coldstart NAME``
    results/weights/<recipe>.json          the edge weights of a run: ``macrorec weights RUN``
    results/tuning/<recipe>.json           one search: ``macrorec tune NAME --out FILE``
    results/benchmarks/<name>.json         what a benchmark printed, one JSON object per line
    results/published.json                 published values: dataset, model (or one recipe of it), metric, value, source

Equal files give an equal text, to the byte, and equal plots.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from macrorec.errors import DataError
from macrorec.eval.cohorts import breakdown, reliability
from macrorec.eval.metrics import METRICS, parse
from macrorec.report import ablations, clicks, coldstart, edges, links, plots, rankings, scale, searches, sweeps
from macrorec.report.cells import (
    Row,
    by_label,
    dataset,
    label,
    picture,
    seeds,
    short,
    spread,
    table,
)
from macrorec.restore import summary
from macrorec.store import Run

HEAD = """# Results

Made by `macrorec results` from the files under `results/`; edit those, not this. Each row gives the mean over seeds,
and the standard deviation behind ± where there are several. Test was read once per run, after everything was chosen.
The gap is ours minus published.
"""

APART = ("benchmarks", "coldstart", "comparisons", "sweeps", "tuning", "weights")
"""Folders of results that are not runs."""
BENCHMARK_KEYS = ("name", "value", "unit", "baseline", "ratio", "machine", "command")
"""What has a column of its own among the benchmarks; other numbers of a line stand together."""
CURVE_POINTS = 8
"""Validations from which on a curve is worth a plot."""


def record(run: Run, recipe: str, command: str) -> dict[str, Any]:
    """What is kept of a finished run: everything but the weights, the losses and the per-user values."""
    origin = run.provenance
    epochs = run.history.get("fit", {}).get("epochs", [])
    kept = ("mask", "counts", "machine", "versions", "commit", "finished")
    samples = run.samples("test")
    measured = {} if samples is None else {"cohorts": breakdown(samples), "reliability": reliability(samples)}
    degrees = run.degrees("test")
    measured |= {} if degrees is None else {"degrees": degrees}
    return {
        **summary(run, recipe),
        "run": run.name,
        "command": command,
        "data": origin["data"]["digest"],
        "rows": origin["data"]["report"],
        **{key: origin[key] for key in (*kept, *(["pairs"] if origin.get("pairs") else []))},
        "config": run.config,
        "curve": [{"epoch": epoch["epoch"], **epoch["metrics"]} for epoch in epochs if epoch["metrics"]],
        **{key: frame.to_dicts() for key, frame in measured.items()},
    }


def markdown(folder: Path) -> str:
    """The text of ``docs/results.md`` for the results in ``folder``. Raises DataError for a file that is no result."""
    runs, found, comparisons = _runs(folder), _read(folder / "tuning"), _read(folder / "comparisons")
    published = _read_file(folder / "published.json") if (folder / "published.json").is_file() else []
    sections = [HEAD]
    for name in sorted({dataset(row) for row in runs} | {row["dataset"] for row in published}):
        for kind in ("ranking", "ctr", "links"):
            ours = [row for row in runs if dataset(row) == name and protocol_of(row) == kind]
            known = [row for row in published if row["dataset"] == name and _protocol_of_metric(row["metric"]) == kind]
            if kind == "ctr" and (ours or known):
                text = clicks.section(name, ours, comparisons, found) + rankings.beside(ours, known)
                sections.append(text + (clicks.commands(ours, comparisons) if ours else ""))
            elif kind == "links" and (ours or known):
                sections.append(links.section(name, ours, known))
            elif ours or known:
                sections.append(rankings.section(name, ours, known, comparisons))
    benchmarks = [line for path in _paths(folder / "benchmarks") for line in _lines(path)]
    for title, make, rows in (
        ("Valid over epochs", _curve_section, _long(runs)),
        ("Ablations", ablations.section, ablations.studies(runs)),
        ("Sweeps", sweeps.section, _read(folder / "sweeps")),
        ("New users", coldstart.section, _read(folder / "coldstart")),
        ("Edge weights by behaviour", edges.section, _read(folder / "weights")),
        ("Time of an epoch over edges", scale.section, scale.of_sizes(benchmarks)),
        ("Settings chosen on valid", searches.section, found),
        ("Benchmarks", _benchmark_section, benchmarks),
    ):
        if rows:
            sections.append(f"## {title}\n\n{make(rows)}")
    return "\n".join(sections)


def pictures(folder: Path) -> dict[str, str]:
    """The plots that the page shows, as SVG by name."""
    runs, result = _runs(folder), {}
    clicked = [row for row in runs if of_clicks(row)]
    for name in sorted({dataset(row) for row in clicked}):
        groups = by_label(row for row in clicked if dataset(row) == name)
        result[f"reliability-{name}"] = plots.reliability(clicks.models_of(groups) or groups)
    for (name, metric), rows in _by_plot(_long(runs)).items():
        result[_curve_name(name, metric)] = plots.curves(rows, metric)
    for study in ablations.studies(runs):
        result[ablations.plot_name(study)] = plots.ablation(study)
    for row in _read(folder / "sweeps"):
        result[f"sweep-{sweeps.file_name(row['recipe'], row['key'])}"] = plots.sweep(row)
    for line in scale.of_sizes([line for path in _paths(folder / "benchmarks") for line in _lines(path)]):
        result[f"scale-{line['name']}"] = plots.scale(line)
    for name, row in searches.telling(_read(folder / "tuning")).items():
        result[name] = plots.search(row["metric"], searches.finished(row), searches.mattered(row))
    for row in _read(folder / "coldstart"):
        result[coldstart.plot_name(row)] = plots.coldstart(row)
    for row in _read(folder / "weights"):
        result[edges.plot_name(row)] = plots.weights(row)
    return result


# --- sections --------------------------------------------------------------------------------------------------------


def _curve_section(runs: Sequence[Row]) -> str:
    """The best validation of each recipe, and a plot per data set and metric."""
    texts = []
    for (name, metric), rows in _by_plot(runs).items():
        sign = 1 if METRICS[parse(metric)[0]].higher_is_better else -1
        body = []
        for own, of in by_label(rows).items():
            best = [max(row["curve"], key=lambda point: sign * point[metric]) for row in of]
            epochs = ", ".join(str(point["epoch"]) for point in best)
            body.append([own, ", ".join(map(str, seeds(of))), spread([point[metric] for point in best]), epochs])
        head = ["recipe", "seeds", f"best {metric}", "at epoch"]
        texts.append(table(head, body) + "\n" + picture(_curve_name(name, metric), f"{metric} of {name} over epochs"))
    return "\n".join(texts)


def _long(runs: Sequence[Row]) -> list[Row]:
    """The runs whose curve is worth a plot."""
    return [row for row in runs if len(row.get("curve", [])) >= CURVE_POINTS]


def _by_plot(runs: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Runs by data set and by the metric that they watched, in order of label and seed."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(runs, key=lambda row: (label(row), row["seed"])):
        metric = row["config"]["train"]["monitor"] or next(key for key in row["curve"][0] if key != "epoch")
        groups[dataset(row), metric].append(row)
    return dict(sorted(groups.items()))


def _curve_name(name: str, metric: str) -> str:
    return f"curve-{name}-{re.sub(r'[^a-z0-9_-]', '-', metric)}"


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
        value = f"{short(line['value'])} {line['unit']}"
        more = {key: line[key] for key in line if key not in BENCHMARK_KEYS and isinstance(line[key], int | float)}
        body.append([line["name"], value, _told(baseline), ratio, _told(more), place, f"`{command}`"])
    head = ["name", "value", "baseline", "ratio", "also", "machine", "command"]
    return table(head, body)


def _told(values: Row) -> str:
    return ", ".join(f"{key} {short(value)}" for key, value in values.items())


# --- files -----------------------------------------------------------------------------------------------------------


def _runs(folder: Path) -> list[Row]:
    """All results of runs below ``folder``, whatever their topic."""
    topics = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [
        row
        for topic in topics
        if topic.name not in APART
        for row in _read(topic)
        if "recipe" in row and "metrics" in row
    ]


def of_clicks(row: Row) -> bool:
    """Whether a run measured clicks, and kept what their tables need."""
    return "cohorts" in row


def protocol_of(row: Row) -> str:
    """What a run measured: ``ctr``, ``links``, or ``ranking``."""
    own = row["config"].get("eval", {}).get("protocol")
    return "ctr" if of_clicks(row) else "links" if own == "links" else "ranking"


def _protocol_of_metric(name: str) -> str:
    return "ctr" if name in clicks.METRICS else "links" if name in links.METRICS else "ranking"


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
