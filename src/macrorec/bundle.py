"""What does a server load? A bundle: one folder, no pickle, every file under a checksum.

manifest.json          format version, macrorec version, sha256 of every other file; written last
config.json            model (name and config), behaviours, and what the caller keeps with it
users.parquet          user_id, row n is number n
items.parquet          item_id, popularity (distinct users of the target behaviour in train), title where there are any
graph.safetensors      per behaviour r: r.start_U, r.item_E, r.weight_E, r.count_E
weights.safetensors    the model's state
clusters-users.parquet, clusters-items.parquet  row n is number n; only for a model with clusters: macrorec.clusters
vectors.safetensors    users_UD, items_ID; only for a TwoTower
macro.safetensors      the macro graph, whole; only for a Ranker
ranker/                a second bundle, whole, with its own manifest, whose Ranker ranks what this one retrieves; the
                       outer manifest lists ``ranker/manifest.json``. Its users and items may differ: they match by id
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from macrorec import __version__, configs, files, models, weights
from macrorec.api import Model, Ranker, TwoTower
from macrorec.clusters import Clusters
from macrorec.data.log import Behavior
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.graph.typed import AnyMacroGraph, restored, types_of

FORMAT = "macrorec-bundle"
VERSION = 2
"""The newest that is read; counts up when an older macrorec could no longer read what a newer one writes. What is
written is 2 with a ranker, else still 1."""
MANIFEST = "manifest.json"
RANKER = "ranker"
"""The subfolder of the second bundle."""
REQUIRED = ("config.json", "users.parquet", "items.parquet", "graph.safetensors", "weights.safetensors")


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A fitted model with all that is needed to recommend from it."""

    folder: Path
    model: Model
    """On the CPU, in evaluation mode."""
    graph: Graph
    """The graph that the model was fitted on."""
    users: Vocab
    items: Vocab
    config: Mapping[str, Any]
    """What the caller of ``save`` kept with it, such as the run's configuration."""
    popularity: npt.NDArray[np.int64]
    """Distinct users of the target behaviour per item, shape (I,)."""
    titles: pl.Series | None = None
    """A name per item, for people, where the log came with any; null for an item without."""
    clusters: Clusters | None = None
    """The model's, where it has any, and its writer kept them."""

    @staticmethod
    def save(
        folder: str | Path,
        model: Model,
        graph: Graph,
        users: Vocab,
        items: Vocab,
        config: Mapping[str, Any] | None = None,
        *,
        titles: pl.Series | None = None,
        clusters: Clusters | None = None,
        ranker: Path | None = None,
    ) -> Path:
        """Write a bundle to ``folder``, whole or not at all; an older bundle there is replaced, anything else is kept.

        ``config``: plain values to keep with it; ``titles``: a name per item; ``clusters``: the model's, else they
        are asked of it, and nothing says until when they were learned; ``ranker``: the folder of a bundle to copy in.
        Raises UserError if ``folder`` is something else than a bundle, DataError if ``ranker`` is none.
        """
        place = Path(folder)
        assert (len(users), len(items)) == (graph.n_users, graph.n_items), "vocabularies and graph belong together"
        behaviors = [configs.plain(behavior) for behavior in graph.behaviors]
        popularity = graph.target.degrees(graph.n_items)[1]
        with files.new_folder(place, MANIFEST) as new:
            described = {
                "model": configs.plain_model(model.config),
                "behaviors": behaviors,
                "config": dict(config or {}),
            }
            if graph.macro is not None:
                described["types"] = list(types_of(graph.macro))
                weights.write(new / "macro.safetensors", graph.macro.tensors())
            files.write_json(new / "config.json", described)
            _write_frame(new / "users.parquet", pl.DataFrame({"user_id": users.ids}))
            columns = {"item_id": items.ids, "popularity": popularity.numpy()}
            named = {} if titles is None else {"title": titles}
            _write_frame(new / "items.parquet", pl.DataFrame({**columns, **named}))
            weights.write(new / "graph.safetensors", _graph_tensors(graph))
            weights.write(new / "weights.safetensors", model.state_dict())
            if isinstance(model, TwoTower):
                with torch.no_grad():
                    users_UD, items_ID = model.encode()
                weights.write(new / "vectors.safetensors", {"users_UD": users_UD, "items_ID": items_ID})
            clusters = clusters or Clusters.of(model, graph, users, items)
            if clusters is not None:
                clusters.write(new)
            sums = {path.name: files.sha256(path) for path in sorted(new.iterdir())}
            if ranker is not None:
                _copy_ranker(ranker, new / RANKER)
                sums[f"{RANKER}/{MANIFEST}"] = files.sha256(new / RANKER / MANIFEST)
            version = 1 if ranker is None else VERSION
            manifest = {"format": FORMAT, "version": version, "macrorec": __version__, "sha256": sums}
            files.write_json(new / MANIFEST, manifest)
        return place

    @staticmethod
    def load(folder: str | Path) -> Bundle:
        """Read a bundle, after checking every file. Raises DataError for what is missing, changed, or too new."""
        place = Path(folder)
        check(place)
        try:
            described = json.loads((place / "config.json").read_text(encoding="utf-8"))
            behaviors = tuple(configs.parse(Behavior, behavior) for behavior in described["behaviors"])
            users = Vocab(pl.read_parquet(place / "users.parquet")["user_id"])
            items_frame = pl.read_parquet(place / "items.parquet")
            items = Vocab(items_frame["item_id"])
            tensors = weights.read(place / "graph.safetensors")
            if len(tensors) != 4 * len(behaviors):
                raise KeyError(f"{len(tensors)} graph tensors for {len(behaviors)} behaviours")
            edges = tuple(_edges(tensors, r, len(users), len(items)) for r in range(len(behaviors)))
            macro = _macro(place, described, len(users), len(items))
            graph = Graph(len(users), len(items), behaviors, edges, macro)
            config = configs.parse_model(described["model"])
            model = models.load(described["model"]["name"]).from_graph(config, graph, torch.Generator().manual_seed(0))
            model.load_state_dict(weights.read(place / "weights.safetensors"), strict=True)
            clusters = Clusters.read(place, {"users": users, "items": items})
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError, pl.exceptions.PolarsError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{place} cannot be read as a bundle: {reason}") from error
        popularity = items_frame["popularity"].to_numpy().astype(np.int64)
        titles = items_frame["title"] if "title" in items_frame.columns else None
        return Bundle(place, model.eval(), graph, users, items, described["config"], popularity, titles, clusters)


def ranker_of(folder: str | Path) -> Path | None:
    """The folder of the ranker that the bundle in ``folder`` carries; None where it carries none."""
    manifest = _manifest(Path(folder))
    return Path(folder) / RANKER if f"{RANKER}/{MANIFEST}" in manifest["sha256"] else None


def check(folder: Path) -> Mapping[str, Any]:
    """The manifest of the bundle in ``folder``, if every file, also of its ranker, has its sha256; else DataError."""
    manifest = _manifest(folder)
    sums = manifest["sha256"]
    for name in [*REQUIRED, *sums]:
        if name not in sums or not (folder / name).is_file():
            raise DataError(f"{folder} is incomplete: {name} is missing")
    for name, wanted in sums.items():
        if files.sha256(folder / name) != wanted:
            raise DataError(f"{folder / name} is damaged: its sha256 is not the one in {MANIFEST}")
    inner = ranker_of(folder)
    if inner is not None:
        if ranker_of(inner) is not None:
            raise DataError(f"{inner} carries a ranker itself: a bundle holds at most two models")
        check(inner)
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the bundle in ``folder``, if it is one that this macrorec reads; else DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a bundle: there is no such folder")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{folder / MANIFEST} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{folder} is not a bundle: {MANIFEST} does not say {FORMAT!r}")
    version, sums = manifest.get("version"), manifest.get("sha256")
    if not isinstance(version, int) or version > VERSION:
        raise DataError(
            f"{folder} has bundle format {version}, newer than {VERSION}, the last that this macrorec reads"
        )
    inner = f"{RANKER}/{MANIFEST}"
    if not isinstance(sums, dict) or not all(Path(name).name == name or name == inner for name in sums):
        raise DataError(f"{folder / MANIFEST} does not list plain file names with their sha256")
    return manifest


def _copy_ranker(ranker: Path, place: Path) -> None:
    """The files of the bundle ``ranker`` that its manifest lists, and the manifest. Raises DataError if it is none."""
    manifest = check(ranker)
    if not _is_ranker(ranker):
        raise DataError(f"{ranker} cannot rank for another model: its own is no ranker")
    if ranker_of(ranker) is not None:
        raise DataError(f"{ranker} carries a ranker itself: a bundle holds at most two models")
    with files.told(place):
        place.mkdir()
        for name in [*manifest["sha256"], MANIFEST]:
            shutil.copyfile(ranker / name, place / name)


def _is_ranker(folder: Path) -> bool:
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return issubclass(models.load(described["model"]["name"]), Ranker)


def _write_frame(path: Path, frame: pl.DataFrame) -> None:
    files.write(path, frame.write_parquet)


def _graph_tensors(graph: Graph) -> dict[str, torch.Tensor]:
    names = ("start_U", "item_E", "weight_E", "count_E")
    return {f"{r}.{name}": getattr(edges, name) for r, edges in enumerate(graph.edges) for name in names}


def _edges(tensors: Mapping[str, torch.Tensor], r: int, n_users: int, n_items: int) -> Edges:
    """The edges of behaviour ``r``, refused where a number points outside: native code trusts them."""
    start_U, item_E = tensors[f"{r}.start_U"], tensors[f"{r}.item_E"]
    size = start_U.diff()
    sound = len(start_U) == n_users + 1 and int(start_U[0]) == 0 and int(start_U[-1]) == len(item_E)
    if not sound or bool((size < 0).any()) or bool(((item_E < 0) | (item_E >= n_items)).any()):
        raise DataError(f"the graph of behaviour {r} does not fit {n_users} users and {n_items} items")
    user_E = torch.arange(n_users).repeat_interleave(size)
    return Edges(user_E, item_E, tensors[f"{r}.weight_E"], tensors[f"{r}.count_E"], start_U)


def _macro(place: Path, described: Mapping[str, Any], n_users: int, n_items: int) -> AnyMacroGraph | None:
    """The macro graph in ``place``, where there is one."""
    if "types" not in described:
        return None
    macro = restored(weights.read(place / "macro.safetensors"), described["types"])
    if (len(macro.users), len(macro.items)) != (n_users, n_items):
        raise DataError(f"the macro graph of {place} does not fit {n_users} users and {n_items} items")
    return macro
