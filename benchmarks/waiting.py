"""How do threads wait? Asleep, as under the command line: a benchmark of training starts itself anew for it."""

from __future__ import annotations

import os
import sys


def asleep(module: str) -> None:
    """Start ``python -m module`` in place of this process, with OMP_WAIT_POLICY=PASSIVE, unless a policy is set.

    Threads of OpenMP that spin for work take the cores from all others for milliseconds after each parallel operation;
    the policy is read when torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.execve(
            sys.executable,
            [sys.executable, "-m", module, *sys.argv[1:]],
            {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )
