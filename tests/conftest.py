"""What holds for every test: hypothesis without deadlines, and no silent skip where CI has what the test needs."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

IN_CI = bool(os.environ.get("CI"))
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

settings.register_profile(
    "macrorec", deadline=None, derandomize=IN_CI, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("macrorec")


def excused(reason: str, *, data_at_hand: bool) -> bool:
    """Whether CI accepts a skip: only for a GPU that is not there, or for data that is not there."""
    words = reason.lower()
    return "cuda" in words or "gpu" in words or ("no data sets" in words and not data_at_hand)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """In CI, turn a skip that has no excuse into a failure."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not excused(reason, data_at_hand=SHARED_DATA.is_dir()):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI without an excuse: {reason}"
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets: $MACROREC_DATA, else ``../shared/data`` beside the checkout; skips without it."""
    folder = Path(os.environ.get("MACROREC_DATA") or SHARED_DATA)
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}: set MACROREC_DATA")
    return folder
