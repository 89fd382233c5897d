"""How do threads wait? As under the command line: a moment awake, then asleep. A benchmark of training starts itself
anew for it."""

from __future__ import annotations

import os
import sys


def asleep(module: str) -> None:
    """Start ``python -m module`` in place of this process, with the waiting policy of the command line, unless one is
    set.

    Threads of OpenMP that spin for work take the cores from all others for milliseconds after each parallel operation.
    Threads that sleep at once must be woken for the next: a step of MacGNN then takes 19 ms in place of 6. So they spin
    for about a tenth of a millisecond. The policy is read when torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.execve(
            sys.executable,
            [sys.executable, "-m", module, *sys.argv[1:]],
            {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "30000"},
        )
