"""How fast is a synthetic market written, and in how much memory? Default: 10 million events.

Baseline: pyarrow reading the finished log and writing it again, row group by row group: what the format alone costs.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.line import emit
from macrorec.data.synthetic import MarketConfig, write_market


def rewrite(source: Path, target: Path) -> float:
    """Seconds to copy a Parquet file through memory."""
    start = time.perf_counter()
    file = pq.ParquetFile(source)
    with pq.ParquetWriter(target, file.schema_arrow, compression="zstd", store_schema=False) as writer:
        for group in range(file.num_row_groups):
            writer.write_table(file.read_row_group(group))
    return time.perf_counter() - start


def main() -> None:
    """Write a market to a temporary folder, copy its log, print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    options = parser.parse_args()
    config = MarketConfig(users=options.users, items=options.items, events=options.events, groups=50, clusters=100)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        start = time.perf_counter()
        report = write_market(config, Path(folder) / "market", options.seed)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        log = Path(folder) / "market" / "log.parquet"
        copied = report.events / rewrite(log, Path(folder) / "copy.parquet")
        size = log.stat().st_size
    emit(
        name="synth",
        value=round(report.events / seconds),
        unit="events/s",
        baseline={"name": "pyarrow, copying the finished log", "value": round(copied)},
        ratio=round(report.events / seconds / copied, 3),
        events=report.events,
        seconds=round(seconds, 2),
        peak_rss_bytes=peak,
        log_bytes=size,
        users=options.users,
        items=options.items,
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
