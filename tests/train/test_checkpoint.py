import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from macrorec.errors import DataError, ResourceError
from macrorec.train import checkpoint
from macrorec.train.checkpoint import CURRENT, PREVIOUS, TEMPORARY, read, remove, write


class Kill(BaseException):
    """Stands for SIGKILL: nothing may be done after it."""


def tensors(seed: int) -> dict[str, Tensor]:
    base = torch.rand(6, 4, generator=torch.Generator().manual_seed(seed))
    return {
        "table": base,
        "same storage": base,
        "transposed": base.T,
        "half": base.to(torch.bfloat16),
        "step": torch.tensor(float(seed)),
        "numbers": torch.arange(5) + seed,
        "flags": base > 0.5,
        "none": torch.zeros(0, 3),
    }


def state(seed: int) -> dict[str, Any]:
    return {"position": {"epoch": seed, "loss": 0.1 + 0.2, "metrics": [1e-300, None, "é"]}}


def stands_at(folder: Path) -> int | None:
    """The seed of the checkpoint in ``folder``, which must be whole."""
    found = read(folder)
    if found is None:
        return None
    seed = int(found.state["position"]["epoch"])
    assert found.state == state(seed) and found.tensors.keys() == tensors(seed).keys()
    for name, tensor in tensors(seed).items():
        assert found.tensors[name].dtype == tensor.dtype and torch.equal(found.tensors[name], tensor)
    return seed


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert stands_at(folder) is None
    for seed in (1, 2, 3):
        write(folder, tensors(seed), state(seed))
        assert stands_at(folder) == seed
    assert {path.name for path in folder.iterdir()} == {CURRENT, PREVIOUS}
    remove(folder)
    assert stands_at(folder) is None and not list(folder.iterdir())


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, tensors(1), state(1))
    path = tmp_path / CURRENT
    content = path.read_bytes()
    noticed = 0
    for place in range(len(content) % 3, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert stands_at(tmp_path) == 1, "a flip that is not noticed changes nothing, such as one in padding"
        except DataError as error:
            noticed += 3
            assert "damaged checkpoint" in str(error) and "\n" not in str(error)
            assert str(path) in str(error) and "delete it to train from the beginning" in str(error)
    assert len(content) - noticed <= 12


def test_every_truncated_file_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, tensors(1), state(1))
    path = tmp_path / CURRENT
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="damaged checkpoint"):
            read(tmp_path)


def test_the_one_before_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, tensors(1), state(1))
    write(tmp_path, tensors(2), state(2))
    (tmp_path / CURRENT).write_bytes((tmp_path / CURRENT).read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert stands_at(tmp_path) == 1
    (line,) = caplog.messages
    assert f"damaged checkpoint {tmp_path / CURRENT}" in line and f"the one before, {PREVIOUS}" in line
    caplog.clear()
    assert stands_at(tmp_path) == 1 and not caplog.messages
    write(tmp_path, tensors(3), state(3))
    assert stands_at(tmp_path) == 3


def test_both_damaged(tmp_path: Path) -> None:
    for name in (CURRENT, PREVIOUS):
        (tmp_path / name).write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=rf"{CURRENT} .*, .*{PREVIOUS} .*: delete it"):
        read(tmp_path)


@pytest.mark.parametrize("fail", ["save_file", "flush", "replace"])
@pytest.mark.parametrize("which", [1, 2])
def test_killed_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str, which: int) -> None:
    """Before, and just after, each step of writing: old or new, never neither; the next write works."""
    for after in (False, True):
        folder = tmp_path / str(after)
        write(folder, tensors(1), state(1))
        write(folder, tensors(2), state(2))
        with monkeypatch.context() as patch:
            owner: Any = Path if fail == "replace" else checkpoint
            real, calls = getattr(owner, fail), []

            def killed(*args: Any, _real: Any = real, _calls: Any = calls, _after: bool = after, **named: Any) -> Any:
                _calls.append(1)
                if len(_calls) == which and not _after:
                    raise Kill
                result = _real(*args, **named)
                if len(_calls) == which:
                    raise Kill
                return result

            patch.setattr(owner, fail, killed)
            if fail == "save_file" and which == 2:
                write(folder, tensors(3), state(3))
                assert stands_at(folder) == 3
                continue
            with pytest.raises(Kill):
                write(folder, tensors(3), state(3))
        expected = 3 if (fail, which) in (("flush", 2),) or (fail == "replace" and which == 2 and after) else 2
        assert stands_at(folder) == expected
        write(folder, tensors(4), state(4))
        assert stands_at(folder) == 4


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, tensors(1), state(1))

    def full(flat: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"the beginning")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(ResourceError, match=rf"cannot write a checkpoint to {tmp_path}: .*No space left"):
            write(tmp_path, tensors(2), state(2))
    assert not (tmp_path / TEMPORARY).exists() and stands_at(tmp_path) == 1


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write a checkpoint to"):
        write(tmp_path / "file" / "folder", tensors(1), state(1))
