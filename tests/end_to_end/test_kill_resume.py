import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def rounds(folder: Path, n: int, seed: int, model: str = "bpr") -> dict[str, Any]:
    """What ``tests.end_to_end.killed`` found."""
    command = [sys.executable, "-W", "error", "-m", "tests.end_to_end.killed", str(folder), str(n), str(seed), model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any], n: int) -> None:
    assert len(found["rounds"]) == n
    for result in found["rounds"]:
        assert result["weights"] and result["history"], result
    assert sum(result["resumed"] for result in found["rounds"]) >= n, "the kills came too early to show anything"
    assert found["best_epoch"] in (1, 2, 3), "best and last weights are not the same"


@pytest.mark.parametrize("model", ["bpr", "ccbie", "macgnn"])
def test_killed_at_random_moments_and_resumed_ends_with_the_same_bits(model: str, tmp_path: Path) -> None:
    check(rounds(tmp_path, 6, seed=0, model=model), 6)


@pytest.mark.slow
def test_killed_many_times(tmp_path: Path) -> None:
    """Often enough for some kills to fall into the writing of a checkpoint."""
    found = rounds(tmp_path, 150, seed=1)
    check(found, 150)
    assert sum(result["torn"] for result in found["rounds"]) >= 10
