"""How many rows of CSV per second are imported, and in how much memory? Beside it: polars, eagerly.

The file (user, item, behaviour, timestamp) is made in a temporary folder and removed. Each side runs in a process of
its own, which reports its time without that of starting Python, and its peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.line import emit

OURS = """
import json, resource, sys, time
from macrorec.data.importing import import_log
from macrorec.data.sources.source import Source
begin = time.perf_counter()
report = import_log(Source(path=sys.argv[1]), sys.argv[2])
taken = time.perf_counter() - begin
assert report.rows_written == int(sys.argv[3])
print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
EAGER = """
import json, resource, sys, time
import polars as pl
begin = time.perf_counter()
pl.read_csv(sys.argv[1]).write_parquet(sys.argv[2])
taken = time.perf_counter() - begin
print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
CHUNK = 1_000_000


def write_log(path: Path, n_rows: int) -> None:
    """``n_rows`` events of a million users and 200,000 items, as CSV."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    behaviors = pl.Series(["view", "cart", "buy"])
    with path.open("wb") as file:
        for start in range(0, n_rows, CHUNK):
            n = min(CHUNK, n_rows - start)
            pl.DataFrame(
                {
                    "user": rng.integers(0, 1_000_000, n),
                    "item": rng.integers(0, 200_000, n),
                    "behavior": behaviors.gather(rng.choice(3, n, p=[0.8, 0.15, 0.05])),
                    "timestamp": rng.integers(1_500_000_000, 1_600_000_000, n),
                }
            ).write_csv(file, include_header=start == 0)


def measured(code: str, *arguments: object) -> tuple[float, int]:
    """Seconds and peak bytes of ``code`` in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def main() -> None:
    """Measure, and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many is reported")
    parser.add_argument("--no-baseline", action="store_true", help="leave out the eager side, which needs much memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        log, out = Path(name) / "log.csv", Path(name) / "log.parquet"
        need = options.rows * 60
        if shutil.disk_usage(name).free < need:
            sys.exit(f"error: {name} has less than {need / 2**30:.0f} GiB free")
        write_log(log, options.rows)
        size = log.stat().st_size
        runs = [measured(OURS, log, out, options.rows) for _ in range(options.repeat)]
        rate = options.rows / min(seconds for seconds, _ in runs)
        extra: dict[str, Any] = {"rows": options.rows, "bytes": size, "peak_rss_bytes": max(peak for _, peak in runs)}
        baseline, ratio = None, None
        if not options.no_baseline:
            eager = [measured(EAGER, log, out) for _ in range(options.repeat)]
            theirs = options.rows / min(seconds for seconds, _ in eager)
            peak = max(peak for _, peak in eager)
            baseline = {"name": "polars read_csv + write_parquet", "value": round(theirs), "peak_rss_bytes": peak}
            ratio = round(rate / theirs, 3)
    emit(name="import_csv", value=round(rate), unit="rows/s", baseline=baseline, ratio=ratio, target=2_000_000, **extra)


if __name__ == "__main__":
    main()
