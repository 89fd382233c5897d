"""Which verbs tell what is here: models, recipes, metrics, this installation?"""

from __future__ import annotations

from importlib import util
from typing import Annotated, Any

import typer

from macrorec.cli.options import Json
from macrorec.cli.output import answer, table


def models(json: Json = False) -> None:
    """List the models and their settings.

    Example: macrorec models
    """
    import dataclasses
    import sys

    from macrorec import models as known
    from macrorec.configs import plain

    rows: list[dict[str, Any]] = []
    for name in known.names():
        model = known.load(name)
        missing = [f for f in dataclasses.fields(model.Config) if f.default is f.default_factory is dataclasses.MISSING]
        settings = {} if missing else plain(model.Config())
        says = (sys.modules[model.__module__].__doc__ or "").split("\n\n")[0]
        rows.append({"name": name, "says": " ".join(says.split()), "settings": settings})
    lines = []
    for row in rows:
        lines += [f"{row['name']}: {row['says']}"]
        lines += [f"    model.{key} = {value}" for key, value in row["settings"].items()]
    answer({"models": rows}, json, lines)


def recipes(
    part: Annotated[str, typer.Argument(metavar="[TEXT]", help="Only those with this in their names.")] = "",
    json: Json = False,
) -> None:
    """List the recipes: models on data sets, with their settings.

    ``macrorec run`` takes their names; a run writes its settings to config.json in its folder.

    Example: macrorec recipes taobao
    """
    from macrorec import recipes as known
    from macrorec.errors import ConfigError

    claims = known.with_claims(part)
    if not claims:
        raise ConfigError(f"no recipe has {part!r} in its name; 'macrorec recipes' lists all")
    rows = [{"name": name, "says": says} for name, says in claims.items()]
    answer({"recipes": rows}, json, table([["recipe", "what it is"], *([row["name"], row["says"]] for row in rows)]))


def metrics(json: Json = False) -> None:
    """List the metrics and their definitions.

    Example: macrorec metrics
    """
    from macrorec.eval.metrics import COHORTS, METRICS

    rows = [
        {"name": metric.name + "@k" * metric.takes_k, "protocols": list(metric.protocols), "definition": metric.formula}
        for metric in METRICS.values()
    ]
    cells = [[row["name"], ", ".join(row["protocols"]), row["definition"]] for row in rows]
    notes = ["", "Users without relevant items are left out and counted. Ties go by item number."]
    ways = [
        "",
        "Where a log has auxiliary behaviours, each metric with a k also measures two cohorts of held-out items, as in",
        "hr@10:discovery. The ranking is the same; relevant are the items of the cohort alone, and users without one",
        'are left out. "Before" means in earlier parts: train, and at test train and valid.',
        *table([["cohort", "relevant are"], *([f":{name}", says] for name, says in COHORTS.items())]),
    ]
    lines = [*table([["metric", "protocol", "definition"], *cells]), *notes, *ways]
    answer({"metrics": rows, "cohorts": dict(COHORTS)}, json, lines)


def doctor(json: Json = False) -> None:
    """Check this installation and machine.

    Example: macrorec doctor
    """
    from macrorec import provenance, recipes
    from macrorec.cli import EXTRAS
    from macrorec.data.sources.home import folders
    from macrorec.errors import UserError
    from macrorec.train.memory import available_bytes, readable

    found: dict[str, Any] = {
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "available_bytes": available_bytes(),
        "data": {str(folder): folder.is_dir() for folder in folders()},
        "extras": {extra: util.find_spec(package) is not None for package, extra in EXTRAS.items()},
        "recipes": len(recipes.names()),
        "self_test": _self_test(),
    }
    lines = [
        *table([["package", "version"], *([key, value] for key, value in found["versions"].items())]),
        "",
        *table([["machine", ""], *([key, str(value)] for key, value in found["machine"].items())]),
        f"available memory  {readable(found['available_bytes'])}",
        "",
        *(f"data folder {folder}: {'there' if there else 'not there'}" for folder, there in found["data"].items()),
        *(f"extra {name}: {'there' if there else 'not installed'}" for name, there in found["extras"].items()),
        f"{found['recipes']} recipes",
        f"self-test: {found['self_test']}",
    ]
    answer(found, json, lines)
    if found["self_test"] != "passed":
        raise UserError(f"the self-test failed: {found['self_test']}")


def _self_test() -> str:
    """Learn a checkerboard with its diagonal held out by EASE, and rank it; ``passed``, or what was wrong."""
    import numpy as np
    import torch

    from macrorec.data.log import Behavior, Interactions
    from macrorec.data.vocab import Vocab
    from macrorec.eval.ranking import top_k
    from macrorec.graph.bipartite import build
    from macrorec.models import load

    n = 20
    user, item = (grid.ravel().astype(np.int32) for grid in np.meshgrid(range(n), range(n), indexing="ij"))
    kept = ((user + item) % 2 == 0) & (user != item)
    vocab = Vocab([str(number) for number in range(n)])
    zeros = np.zeros(kept.sum(), dtype=np.int8)
    graph = build(Interactions(vocab, vocab, (Behavior(name="like"),), user[kept], item[kept], zeros))
    model = load("ease").from_graph(load("ease").Config(l2=1.0), graph, torch.Generator().manual_seed(0))
    model.solve(graph, torch.Generator().manual_seed(0))
    best, _ = top_k(model, np.arange(n), 1, graph.masked())
    right = int((best[:, 0] == np.arange(n)).sum())
    return "passed" if right == n else f"{right} of {n} users got their held-out item"
