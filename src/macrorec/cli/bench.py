"""Which verb measures a bundle on the user's own machine?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from macrorec.cli.options import Json, Seed
from macrorec.cli.output import answer, note, table


def bench(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle: macrorec export.")],
    requests: Annotated[int, typer.Option("--requests", min=1, help="Requests of each kind of user.")] = 1_000,
    candidates: Annotated[int, typer.Option("--candidates", min=1, help="Items retrieved for each request.")] = 200,
    events: Annotated[
        int, typer.Option("--events", min=1, help="Events that are stored, each flushed to disk.")
    ] = 2_000,
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=1_000, help="Threads that store events at once.")
    ] = 16,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="On the disk to be measured; holds a log meanwhile.")
    ] = Path(),
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure how fast a bundle answers on this machine, and how soon events are on disk and in the answer.

    In this process, without HTTP; one thread asks. Known users are as the fit has them, changed ones have an event
    since, which most models fold in. The bundle stays as it is.

    Example: macrorec bench shop.bundle --folder shop-data
    """
    from macrorec.serve.bench import BenchConfig
    from macrorec.serve.bench import bench as measured

    config = BenchConfig(requests=requests, candidates=candidates, events=events, threads=threads, seed=seed)
    found = {"bundle": str(bundle), **measured(bundle, folder, config, note)}
    answer(found, json, _lines(found))


def _lines(found: dict[str, Any]) -> list[str]:
    from macrorec.train.memory import readable

    models = " and ".join(name for name in dict.fromkeys((found["retriever"], found["ranker"])) if name)
    kinds, wait, stored = ("known", "changed"), found["event_to_answer"], found["events"]
    stages = list(dict.fromkeys(stage for kind in kinds for stage in found[kind]["milliseconds"]))
    head = ["milliseconds", *(f"{kind} {which}" for kind in kinds for which in ("p50", "p99"))]
    rows = [
        [stage, *(found[kind]["milliseconds"].get(stage, {}).get(p, "") for kind in kinds for p in ("p50", "p99"))]
        for stage in stages
    ]
    paths = {kind: ", ".join(f"{n:,} by {path}" for path, n in found[kind]["paths"].items()) for kind in kinds}
    return [
        f"{found['bundle']}: {models}, {found['users']:,} users, {found['items']:,} items; "
        f"{found['candidates']:,} candidates",
        "",
        *table([head, *rows]),
        "",
        *(f"{kind} users: {found[kind]['per_second']:,.0f} requests/s of one thread ({paths[kind]})" for kind in kinds),
        f"event to answer, flushed: p50 {wait['p50']:.2f} ms, p99 {wait['p99']:.2f} ms; "
        f"{wait['changed']:,} of {wait['events']:,} answers changed",
        f"events: {stored['per_second']:,.0f}/s acknowledged and flushed, by {stored['threads']} threads, "
        f"p99 {stored['p99']:.1f} ms; the disk flushes {stored['flushes_per_second']:,.0f}/s",
        f"peak memory {readable(found['peak_rss_bytes'])}",
    ]
