"""How long does ``macrorec --help`` take, in a fresh process? Beside it: ``import torch`` alone."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.line import emit

RUNS = 15


def seconds(*arguments: str) -> float:
    """Median wall time of ``python arguments`` over ``RUNS`` fresh processes, after one that warms the disk cache."""
    taken = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    ours, theirs = seconds("-m", "macrorec", "--help"), seconds("-c", "import torch")
    emit(
        name="cli_start",
        value=round(ours, 4),
        unit="s",
        baseline={"name": "python -c 'import torch'", "value": round(theirs, 4)},
        ratio=round(theirs / ours, 2),
        target=0.5,
    )
