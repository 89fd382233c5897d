"""The format of a file is told by its ending, else by its first lines, and never guessed between two."""

from pathlib import Path

import pytest

from macrorec.data.sources.formats import formats
from macrorec.data.sources.source import Source, inspect
from macrorec.errors import ConfigError, DataError

LOOKS = {
    "csv": "user,item,rating\n1,2,3\n",
    "jsonl": '{"user": 1, "item": 2}\n',
    "atomic": "user_id:token\titem_id:token\n1\t2\n",
    "movielens": "1::1193::5::978300760\n",
    "lightgcn": "0 1 2 3\n1 4\n",
    "edges": "0\t1\t5\n0\t2\t3\n",
}


def test_the_formats_are_the_modules() -> None:
    assert set(formats()) == {*LOOKS, "parquet"}


@pytest.mark.parametrize(("name", "text"), [*LOOKS.items(), ("movielens", "196\t242\t3\t881250949\n")])
def test_by_the_first_lines(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "log.txt").write_text(text)
    found = inspect(Source(path=str(tmp_path / "log.txt")))
    assert found.format == name
    assert found.notes[0] == f"format is {name}, by its first lines"


def test_a_declared_format_wins_over_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("1\t2\t0.5\n")
    found = inspect(Source(path=str(path), format="edges"))
    assert found.format == "edges" and not any("format is" in note for note in found.notes)


@pytest.mark.parametrize("text", ["1 2 3\n4 5 6\n", "hello world\n", "1\t2\t3\t4\t5\n"])
def test_what_is_unclear_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(
        DataError, match=r"cannot tell the format.*say format= one of atomic, csv, edges, jsonl, lightgcn"
    ):
        inspect(Source(path=str(tmp_path / "log")))


def test_unknown_formats_and_separators(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOOKS["csv"])
    with pytest.raises(ConfigError, match=r"unknown format 'xls'; allowed are auto, atomic, csv"):
        inspect(Source(path=str(tmp_path / "log"), format="xls"))
    with pytest.raises(ConfigError, match="separator is 'ab'"):
        inspect(Source(path=str(tmp_path / "log"), separator="ab"))
