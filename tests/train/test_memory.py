import resource
from pathlib import Path

import pytest
import torch

from macrorec.errors import ResourceError
from macrorec.train import memory
from macrorec.train.memory import available_bytes, readable, require

GIB = 1 << 30


def machine(root: Path, *, free: int = 100 * GIB, cgroup: str = "0::/\n", files: dict[str, str] | None = None) -> Path:
    """A tree of /proc and /sys under ``root``."""
    content = {
        "proc/meminfo": f"MemTotal: 999999999999 kB\nMemFree: 1 kB\nMemAvailable: {free // 1024} kB\n",
        "proc/self/cgroup": cgroup,
        "proc/self/statm": "1000 500 1 1 0 1 0\n",
    }
    for name, text in (content | (files or {})).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def no_ulimit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_free_memory_of_the_machine(tmp_path: Path) -> None:
    assert available_bytes(root=machine(tmp_path, free=7 * GIB)) == 7 * GIB


def test_control_groups_of_version_2(tmp_path: Path) -> None:
    """The tightest of the group and those above counts; file cache that can be dropped is free."""
    at = "sys/fs/cgroup/"
    files = {
        f"{at}a/memory.max": f"{10 * GIB}\n",
        f"{at}a/memory.current": f"{4 * GIB}\n",
        f"{at}a/memory.stat": f"anon 5\ninactive_file {1 * GIB}\n",
        f"{at}a/b/memory.max": "max\n",
        f"{at}a/b/memory.current": f"{4 * GIB}\n",
    }
    assert available_bytes(root=machine(tmp_path, cgroup="0::/a/b\n", files=files)) == 7 * GIB
    (tmp_path / f"{at}a/b/memory.max").write_text(f"{6 * GIB}\n")
    assert available_bytes(root=tmp_path) == 2 * GIB


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    at = "sys/fs/cgroup/memory/"
    files = {
        f"{at}memory.limit_in_bytes": "9223372036854771712\n",
        f"{at}memory.usage_in_bytes": f"{50 * GIB}\n",
        f"{at}job/memory.limit_in_bytes": f"{8 * GIB}\n",
        f"{at}job/memory.usage_in_bytes": f"{5 * GIB}\n",
        f"{at}job/memory.stat": f"total_inactive_file {2 * GIB}\ninactive_file 1\n",
    }
    root = machine(tmp_path, cgroup="5:cpu,cpuacct:/x\n4:memory:/job\n0::/\n", files=files)
    assert available_bytes(root=root) == 5 * GIB


def test_control_group_of_a_container(tmp_path: Path) -> None:
    """The path is the host's, and not to be seen here; the group itself is mounted at the top."""
    files = {"sys/fs/cgroup/memory.max": f"{3 * GIB}\n", "sys/fs/cgroup/memory.current": f"{1 * GIB}\n"}
    assert available_bytes(root=machine(tmp_path, cgroup="0::/docker/f00/init\n", files=files)) == 2 * GIB


def test_address_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (5 * GIB, resource.RLIM_INFINITY))
    assert available_bytes(root=machine(tmp_path)) == 5 * GIB - 1000 * resource.getpagesize()


def test_more_used_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "5\n", "sys/fs/cgroup/memory.current": "9\n"}
    assert available_bytes(root=machine(tmp_path, files=files)) == 0


def test_this_machine_has_some() -> None:
    assert 1 << 20 < available_bytes() < 1 << 50


def test_without_proc_the_machine_is_asked(tmp_path: Path) -> None:
    assert 1 << 20 < available_bytes(root=tmp_path) < 1 << 50


def test_require(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2 * GIB)
    require(2 * GIB, "a table", "none")
    line = r"^a table needs about 2.0 GiB of memory, and 2.0 GiB are available: take a smaller one$"
    with pytest.raises(ResourceError, match=line) as caught:
        require(2 * GIB + 1, "a table", "take a smaller one")
    assert caught.value.exit_code == 4


def test_cuda_is_asked_for_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, 80 * GIB))
    assert available_bytes("cuda:0") == GIB
    with pytest.raises(ResourceError, match=r"needs about 2.0 GiB of memory on cuda:0, and 1.0 GiB are available: x"):
        require(2 * GIB, "it", "x", device="cuda:0")


def test_readable() -> None:
    assert [readable(n) for n in (0, 5 << 20, GIB, 3 * GIB // 2)] == ["0 MiB", "5 MiB", "1.0 GiB", "1.5 GiB"]
