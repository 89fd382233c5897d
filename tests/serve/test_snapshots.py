import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from macrorec.errors import DataError, ResourceError
from macrorec.serve import snapshots
from macrorec.serve.snapshots import KEPT, latest, positions, write

TENSORS = {"a": torch.arange(5), "b.c": torch.ones(2, 3), "none": torch.empty(0)}
FRAMES = {
    "users": pl.DataFrame({"id": ["ann", "bob"], "n": [1, 2]}),
    "items": pl.DataFrame({"id": []}, {"id": pl.Int64}),
}
META = {"forgotten": ["0a"], "n": 3, "title": "ü"}


def test_a_snapshot_comes_back(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") is None and positions(tmp_path / "none") == ()
    place = write(tmp_path / "s", 7, TENSORS, FRAMES, META)
    assert place == tmp_path / "s" / "snapshot-7"
    found = latest(tmp_path / "s")
    assert found is not None
    assert (found.position, found.meta, found.skipped) == (7, META, ())
    assert found.tensors.keys() == TENSORS.keys() and found.frames.keys() == FRAMES.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert all(found.frames[name].equals(frame) for name, frame in FRAMES.items())
    assert found.frames["items"].schema == FRAMES["items"].schema


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for position in (5, 9, 10, 100):
        write(tmp_path, position, TENSORS, FRAMES, {"n": position})
    assert positions(tmp_path) == (10, 100) and KEPT == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snapshot-10", "snapshot-100"]
    write(tmp_path, 100, TENSORS, FRAMES, {"n": "again"})
    found = latest(tmp_path)
    assert found is not None and found.meta == {"n": "again"} and positions(tmp_path) == (10, 100)


def test_those_before_may_be_discarded(tmp_path: Path) -> None:
    for position in (5, 9):
        write(tmp_path, position, TENSORS, FRAMES, {})
    left = tmp_path / ".snapshot-9.x7.tmp"
    left.mkdir()
    (left / "users.parquet").write_text("ann")
    write(tmp_path, 9, TENSORS, FRAMES, {})
    assert positions(tmp_path) == (5, 9) and not left.exists()
    left.mkdir()
    assert snapshots.discard(tmp_path, 9) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot-9"]
    assert snapshots.discard(tmp_path, 10) == 1 and latest(tmp_path) is None


def test_a_flipped_bit_anywhere_is_told_and_the_one_before_is_taken(tmp_path: Path) -> None:
    write(tmp_path, 1, TENSORS, FRAMES, META)
    place = write(tmp_path, 2, TENSORS, FRAMES, META)
    random = np.random.default_rng(0)
    for path in sorted(place.iterdir()):
        data = path.read_bytes()
        for where in random.integers(0, len(data), 12).tolist():
            changed = bytearray(data)
            changed[where] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            found = latest(tmp_path)
            assert found is not None and found.position == 1, (path, where)
            (told,) = found.skipped
            assert "snapshot-2" in told and "\n" not in told
        path.write_bytes(data[:-2])
        found = latest(tmp_path)
        assert found is not None and found.position == 1 and len(found.skipped) == 1
        path.write_bytes(data)
    found = latest(tmp_path)
    assert found is not None and found.position == 2 and found.skipped == ()


@pytest.mark.parametrize("name", ["tensors.safetensors", "users.parquet", "meta.json", "manifest.json"])
def test_a_missing_or_added_file_is_told(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1, TENSORS, FRAMES, META)
    place = write(tmp_path, 2, TENSORS, FRAMES, META)
    (place / "more.parquet").write_bytes(b"")
    found = latest(tmp_path)
    assert found is not None and "has not the files that its manifest names" in found.skipped[0]
    (place / "more.parquet").unlink()
    (place / name).unlink()
    found = latest(tmp_path)
    assert found is not None and found.position == 1 and len(found.skipped) == 1


def test_one_under_another_name_is_told(tmp_path: Path) -> None:
    write(tmp_path, 1, TENSORS, FRAMES, META).rename(tmp_path / "snapshot-3")
    write(tmp_path, 2, TENSORS, FRAMES, META)
    found = latest(tmp_path)
    assert found is not None and found.position == 2 and "not a snapshot of position 3" in found.skipped[0]


def test_nothing_but_damage_is_refused(tmp_path: Path) -> None:
    for position in (1, 2):
        (write(tmp_path, position, TENSORS, FRAMES, META) / "meta.json").write_text("{}")
    with pytest.raises(DataError, match=r"every snapshot in .* is damaged: .*snapshot-2.*snapshot-1.*put back a copy"):
        latest(tmp_path)


def test_a_snapshot_of_a_newer_format_is_told(tmp_path: Path) -> None:
    place = write(tmp_path, 1, TENSORS, FRAMES, META)
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps({**manifest, "format": "macrorec-snapshot 2"}))
    with pytest.raises(DataError, match="in the format 'macrorec-snapshot 1'"):
        latest(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, TENSORS, FRAMES, META)

    def full(path: Path, tensors: object) -> None:
        with snapshots.files.told(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots.weights, "write", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        write(tmp_path, 2, TENSORS, FRAMES, META)
    found = latest(tmp_path)
    assert found is not None and found.position == 1 and len(list(tmp_path.iterdir())) == 1


WRITER = """
import sys, torch, polars as pl
from macrorec.serve.snapshots import latest, write
found = latest(sys.argv[1])
position = found.position if found else 0
while True:
    position += 1
    write(sys.argv[1], position, {"a": torch.full((1000,), position)}, {"f": pl.DataFrame({"n": [position]})}, {})
    print(position, flush=True)
"""


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_whole_ones(tmp_path: Path, rounds: int) -> None:
    random = np.random.default_rng(rounds)
    for _ in range(rounds):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = int(process.stdout.readline())
            time.sleep(float(random.uniform(0, 0.3)))
            os.kill(process.pid, signal.SIGKILL)
            told = max([told, *map(int, process.stdout.read().split())])
        found = latest(tmp_path)
        assert found is not None and found.position in (told, told + 1) and found.skipped == ()
        assert found.frames["f"]["n"].to_list() == [found.position] == found.tensors["a"].unique().tolist()
    write(tmp_path, found.position + 1, TENSORS, FRAMES, META)
    assert len(list(tmp_path.iterdir())) == 2  # nothing unfinished is left
