"""Where do the numbers come from? The machine, the versions, the command and the commit behind a result."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from macrorec import __version__

PACKAGES = ("numpy", "polars", "pyarrow", "scipy", "torch")
"""Those whose version can move a number."""


def versions() -> dict[str, str]:
    """Versions of macrorec, Python, and the packages that can move a number."""
    return {
        "macrorec": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in PACKAGES},
    }


def machine() -> dict[str, Any]:
    """The processor's name, the cores this process may use, threads of torch, memory in GiB, and the GPU if any."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def command() -> str:
    """The command line of this process, with the program's name in place of its path."""
    program = Path(sys.argv[0]).name
    return shlex.join(["macrorec" if program == "__main__.py" else program, *sys.argv[1:]])


def commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``+`` if files differ from it; None without one."""
    here = Path(__file__).parent
    try:
        answers = [
            subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", "."])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return answers[0].strip() + ("+" if answers[1].strip() else "")


def peak_rss_bytes() -> int:
    """The most memory this process has held resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
