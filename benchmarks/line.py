"""What does a benchmark print? One JSON line: name, value, unit, baseline, ratio, what else it measured, machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The processor's name, the cores this process may use, memory in GiB, and the versions that matter."""
    import numpy
    import torch

    cpu = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def emit(
    *, name: str, value: float, unit: str, baseline: dict[str, Any] | None, ratio: float | None, **extra: Any
) -> None:
    """Print the line. ``baseline`` names what was compared; ``ratio`` says how many times better we are."""
    line = {
        "name": name,
        "value": value,
        "unit": unit,
        "baseline": baseline,
        "ratio": ratio,
        **extra,
        "command": " ".join(["python -m benchmarks." + Path(sys.argv[0]).stem, *sys.argv[1:]]),
        "machine": machine(),
    }
    print(json.dumps(line))
