import errno
from pathlib import Path
from typing import Any

import pytest

from macrorec import files
from macrorec.errors import ResourceError, UserError


def full(*arguments: Any, **named: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    monkeypatch.setattr(files, "flush", full)
    with pytest.raises(ResourceError, match=r"cannot write .*a\.json: the disk is full"):
        files.write_json(path, {"new": 2})
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_ctrl_c_leaves_no_temporary_file(tmp_path: Path) -> None:
    def interrupted(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "a", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*: No such file or directory"):
        files.write_json(tmp_path / "none" / "a.json", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError), files.new_folder(tmp_path / "file" / "folder", "m"):
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path, fails: bool) -> None:
    place = tmp_path / "place"
    for content in ("first", "second"):
        try:
            with files.new_folder(place, "marker") as new:
                (new / "marker").write_text(content)
                (new / "inner").mkdir()
                (new / "inner" / content).write_text(content)
                if fails and content == "second":
                    raise KeyError
        except KeyError:
            pass
    wanted = "first" if fails else "second"
    assert (place / "marker").read_text() == (place / "inner" / wanted).read_text() == wanted
    assert [p.name for p in tmp_path.iterdir()] == ["place"]
    assert sorted(p.name for p in place.iterdir()) == ["inner", "marker"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    with files.new_folder(place, "marker") as new:
        (new / "marker").write_text("old")
    rename = Path.rename

    def fragile(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            full()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fragile)
    with pytest.raises(ResourceError), files.new_folder(place, "marker") as new:
        (new / "marker").write_text("new")
    assert (place / "marker").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


def test_a_folder_of_somebody_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    refused = pytest.raises(UserError, match="it exists and is not a folder that macrorec wrote")
    with refused, files.new_folder(tmp_path, "marker"):
        raise AssertionError
    assert (tmp_path / "precious").read_text() == "data"
    (tmp_path / "empty").mkdir()
    with files.new_folder(tmp_path / "empty", "marker") as new:
        (new / "marker").write_text("")
    assert (tmp_path / "empty" / "marker").is_file()


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_text("abc")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
