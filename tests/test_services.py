"""``scripts/services.sh`` says what is missing, and what it cannot do about it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.house import ROOT

NEEDED = ("bash", "env")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder that is the whole PATH: it has what the script itself needs, and no services."""
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    return tmp_path


def program(folder: Path, name: str, body: str = "exit 0") -> None:
    (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
    (folder / name).chmod(0o755)


def services(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [ROOT / "scripts" / "services.sh", *arguments], env={"PATH": str(folder)}, capture_output=True, text=True
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_all_there(programs: Path) -> None:
    program(programs, "valkey-server")
    program(programs, "chromium")
    assert services(programs) == services(programs, "--check") == (0, "services: all there\n")


def test_what_is_missing_is_told(programs: Path) -> None:
    program(programs, "chromium")
    assert services(programs, "--check") == (1, "services: missing: redis-server\n")
    code, told = services(programs)
    assert code == 1 and "there is no apt-get; install redis-server" in told


def test_only_root_installs(programs: Path) -> None:
    program(programs, "apt-get", "exit 9")
    program(programs, "id", "echo 1000")
    code, told = services(programs)
    assert code == 1 and "run 'apt-get install redis-server chromium' as root" in told


def test_ci_calls_it_before_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 0 < script.index("\nscripts/services.sh\n") < script.index("\nmake test\n")
