"""How does an epoch of CCBIE grow with the edges of a synthetic market, and in how much memory? d 64, K 32, 4 threads.

Run as ``python -m benchmarks.ccbie_scale [--events 1e5,1e6,1e7,1e8] [--steps 20000] [--batch 256]``, each size in a
process of its own. A market of E events, all of them views, has E / 50 users and E / 250 items; its events go straight
into arrays of int32, without a file. ``edges`` are its distinct pairs. Of an epoch at most so many steps are made; the
first half warms up (pages, caches, and the steps of Adam that rows put off), the second is scaled to the epoch, and to
it comes the time of shuffling all edges and of making up for what rows put off, once per epoch each.

Memory is the peak of the resident set while it trains, beside what it is made of: a process that has trained a tiny
market; tables, (I + J + K) d numbers three times, for Adam's two moments; edges, 28 bytes of each in the graph and four
in the order of an epoch. The log is gone by then. ``ratio`` is edges per second at the largest size over those at a
million: 1 is flat.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.epochs import Clock, Enough
from benchmarks.line import emit
from benchmarks.waiting import asleep
from macrorec.data.log import Behavior, Interactions
from macrorec.data.market import MarketConfig, events, plant
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, build
from macrorec.models.ccbie import MODEL
from macrorec.train.sampling import sampler
from macrorec.train.trainer import TrainConfig, train

THREADS, SIZES, STEPS, BATCH = 4, "1e5,1e6,1e7,1e8", 20_000, 256
CONFIG = MODEL.Config(dim=64, n_clusters=32, hidden=32, n_preferences=8, n_negatives=4)
FLAT_FROM = 1_000_000


def log_of(n_events: int, seed: int = 0) -> Interactions:
    """The views of a market, in int32."""
    habits = MarketConfig(
        users=max(n_events // 50, 10),
        items=max(n_events // 250, 40),
        events=n_events,
        groups=10,
        clusters=32,
        affinity=0.5,
        popularity=0.5,
        cart_rate=0.0,
        repeat_rate=0.0,
    )
    user, item = np.empty(habits.visits, np.int32), np.empty(habits.visits, np.int32)
    filled = 0
    for part in events(plant(habits, seed), seed):
        here = slice(filled, filled + len(part))
        user[here], item[here] = part.user, part.item
        filled += len(part)
    user, item = user[:filled], item[:filled]
    vocabs = Vocab(np.arange(habits.users)), Vocab(np.arange(habits.items))
    return Interactions(*vocabs, (Behavior(name="view"),), user, item, np.zeros(filled, np.int8))


def measure(n_events: int, steps: int, batch: int) -> dict[str, Any]:
    """One size: seconds of an epoch, and peaks of memory in MiB."""
    torch.set_num_threads(THREADS)
    settings = TrainConfig(epochs=1, batch_size=batch, lr=2e-3)
    descend(build(log_of(10_000)), settings, steps=4)
    base = resident()[1]
    began = time.perf_counter()
    log = log_of(n_events)
    made = time.perf_counter()
    before = resident(reset=True)[1]
    graph = build(log)
    built, build_peak = time.perf_counter(), resident()[0] - before
    del log
    wall, cpu, order, settle, loss = descend(graph, settings, steps)
    n_steps = -(-len(graph.target) // batch)
    seconds = n_steps * wall + order + settle
    mib = 2**20
    return {
        "edges": len(graph.target),
        "users": graph.n_users,
        "items": graph.n_items,
        "seconds": round(seconds, 3),
        "edges_per_second": round(len(graph.target) / seconds),
        "cpu_seconds": round(n_steps * cpu + order + settle, 3),
        "steps": n_steps,
        "measured": min(steps, n_steps) // 2,
        "order_seconds": round(order, 3),
        "settle_seconds": round(settle, 3),
        "loss": loss,
        "market_seconds": round(made - began, 1),
        "graph_seconds": round(built - made, 2),
        "graph_peak_mib": round(build_peak / mib, 1),
        "base_mib": round(base / mib, 1),
        "tables_mib": round(3 * 4 * (graph.n_nodes + CONFIG.n_clusters) * CONFIG.dim / mib, 1),
        "edges_mib": round(32 * len(graph.target) / mib, 1),
        "peak_mib": round(resident()[0] / mib, 1),
    }


def descend(graph: Graph, settings: TrainConfig, steps: int) -> tuple[float, float, float, float, float]:
    """Wall and processor seconds of a step, seconds of an order, of making up for steps, and a mean loss per edge."""
    model = MODEL.from_graph(CONFIG, graph, torch.Generator().manual_seed(0))
    resident(reset=True)
    assert model.batches is not None
    batches = sampler(model.batches, graph, settings.batch_size, seed=0)
    steps = min(steps, batches.n_steps)
    clock = Clock(steps)
    with suppress(Enough):
        train(model, graph, settings, seed=0, progress=clock)
    start = time.perf_counter()
    model.eval()
    settle = time.perf_counter() - start
    start = time.perf_counter()
    batches._order(0)
    order = time.perf_counter() - start
    half = steps // 2
    last = slice(half, steps)
    wall, cpu = ((ticks[steps] - ticks[half]) / (steps - half) for ticks in (clock.wall, clock.cpu))
    return wall, cpu, order, settle, round(float(np.mean(clock.losses[last])) / settings.batch_size, 4)


def resident(*, reset: bool = False) -> tuple[int, int]:
    """Bytes: the most that this process held since the last reset, where Linux lets it, and what it holds now."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    peak, now = (1024 * int(lines[name].split()[0]) for name in ("VmHWM", "VmRSS"))
    return peak, now


def main() -> None:
    """Measure each size and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default=SIZES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(float(text)) for text in options.events.split(",")]
    if options.alone:
        print(json.dumps(measure(sizes[0], options.steps, options.batch)))
        return
    asleep("benchmarks.ccbie_scale")
    points = []
    for size in sizes:
        words = ["--alone", "--events", str(size), "--steps", str(options.steps), "--batch", str(options.batch)]
        command = [sys.executable, "-m", "benchmarks.ccbie_scale", *words]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        points.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(points[-1]), file=sys.stderr)
    flat = min(points, key=lambda point: abs(point["edges"] - FLAT_FROM))
    emit(
        name="ccbie_scale",
        value=points[-1]["edges_per_second"],
        unit="edges/s",
        baseline={"name": f"the same with {flat['edges']:,} edges", "value": flat["edges_per_second"]},
        ratio=round(points[-1]["edges_per_second"] / flat["edges_per_second"], 2),
        epoch_seconds=points[-1]["seconds"],
        points=points,
        batch=options.batch,
        dim=CONFIG.dim,
        n_clusters=CONFIG.n_clusters,
        n_negatives=CONFIG.n_negatives,
        threads=THREADS,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
