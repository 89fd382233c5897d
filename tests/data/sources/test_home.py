"""A path is taken as given, else sought in the data folder."""

from pathlib import Path

import pytest

from macrorec.data.sources.home import data_home, folders, locate
from macrorec.errors import DataError


def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MACROREC_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("far")
    assert data_home() == tmp_path / "data" and folders() == [tmp_path / "data"]
    assert locate("a.csv").read_text() == "far"
    (tmp_path / "a.csv").write_text("near")
    assert locate("a.csv").read_text() == "near"
    assert locate(tmp_path / "a.csv").read_text() == "near"


def test_the_cache_folder_comes_first_without_a_declared_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MACROREC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folders()[0] == tmp_path / "macrorec" / "data"
    (tmp_path / "macrorec" / "data").mkdir(parents=True)
    assert data_home() == folders()[0]


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROREC_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"there is no file 'no.csv'; looked in .*{tmp_path}"):
        locate("no.csv")
    with pytest.raises(DataError, match="is a folder; give a file in it"):
        locate(tmp_path)
    with pytest.raises(DataError, match=r"is not the name of a file|there is no file"):
        locate("x" * 5000)
    with pytest.raises(DataError, match=r"there is no file 'a.*b'"):
        locate("a\0b")
    with pytest.raises(DataError, match="not a regular file"):
        locate("/dev/null")
