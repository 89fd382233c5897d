from pathlib import Path

import pytest
import torch

from macrorec import weights
from macrorec.errors import DataError


def test_views_empty_and_shared_tensors_come_back_equal(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    tensors = {"base": base, "turned": base.T, "row": base[1], "none": torch.zeros(0, 5), "ids": torch.tensor([2**40])}
    weights.write(tmp_path / "w", tensors)
    read = weights.read(tmp_path / "w")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, b"\xff" * 100])
def test_damaged_or_missing_is_one_line(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "w").write_bytes(damage)
    for path in (tmp_path / "w", tmp_path / "missing"):
        with pytest.raises(DataError, match="cannot be read") as caught:
            weights.read(path)
        assert "\n" not in str(caught.value)
