"""Would it fit? An estimate is compared with what is left before an array is made, not after the process is killed."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from macrorec.errors import ResourceError


def available_bytes(device: torch.device | str = "cpu", *, root: Path = Path("/")) -> int:
    """Bytes that this process can still take: the least of all limits that apply.

    On the CPU: free memory of the machine, of every control group above the process (v1 and v2; file cache that can be
    dropped counts as free), and the address space left under ``ulimit -v``. On CUDA: free memory of the device.
    ``root`` is where /proc and /sys are looked for.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [*_machine(root), *_control_groups(root), *_address_space(root)]
    return max(0, min(limits, default=sys.maxsize))


def require(n_bytes: int, what: str, hint: str, *, device: torch.device | str = "cpu") -> None:
    """Raise ResourceError, with estimate, limit and ``hint``, if ``what`` needs more than is available."""
    available = available_bytes(device)
    if n_bytes > available:
        place = "memory" if torch.device(device).type == "cpu" else f"memory on {device}"
        raise ResourceError(
            f"{what} needs about {readable(n_bytes)} of {place}, and {readable(available)} are available: {hint}"
        )


def readable(n_bytes: int) -> str:
    """``1.5 GiB`` or ``3 MiB``."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def _machine(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        yield from (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except OSError:
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_groups(root: Path) -> Iterator[int]:
    """Limit minus use, for the process's group and all groups above it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, limit, used, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, cache = root / "sys/fs/cgroup/memory", "total_inactive_file"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # Inside a container the path may be the host's, and the container's own group is mounted at the top.
        group = top / path.lstrip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
            bound, use = _text(folder / limit).strip(), _text(folder / used).strip()
            if bound.isdigit() and use.isdigit():
                stat = dict(row.split() for row in _text(folder / "memory.stat").splitlines())
                yield int(bound) - int(use) + int(stat.get(cache, 0))


def _address_space(root: Path) -> Iterator[int]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text(root / "proc/self/statm").split()
    if soft != resource.RLIM_INFINITY and pages:
        yield soft - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
