"""Every format: what is written is read back, and no bytes make a reader do anything but read or raise DataError."""

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macrorec.data.importing import convert, import_log
from macrorec.data.log import COLUMNS
from macrorec.data.sources.formats import formats
from macrorec.data.sources.source import Source, read
from macrorec.errors import DataError

HOSTILE = ["007", "7", "-0", "1e3", "null", "NaN", " ", " a ", 'say "hi"', "a,b", "a;b|c", "x\ty", "l1\nl2", "\r", "\\",
           "😀", "é", "e\u0301", "'", "#no comment", "::", "{}", "\ufeff", "\x00", "\u2028", "\x85",
           "x" * 10_000]  # fmt: skip
IDS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20)).filter(bool)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "user_id": IDS,
    "item_id": IDS,
    "behavior": IDS,
    "timestamp": st.integers(10**8, 10**11 - 1),
    "weight": FINITE.map(abs),
    "label": FINITE,
}
ENDING = {
    "csv": ".csv",
    "parquet": ".parquet",
    "jsonl": ".jsonl",
    "atomic": ".inter",
    "edges": ".edges",
    "lightgcn": ".txt",
}


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def logs(draw: st.DrawFn, holds: tuple[str, ...]) -> pl.DataFrame:
    """A log of a few rows with some of the columns that the format holds, and ids that it can hold."""
    names = [name for name in COLUMNS if name in holds and (name in COLUMNS[:2] or draw(st.booleans()))]
    n_rows = draw(st.integers(1, 6))
    columns = {name: [draw(VALUES[name]) for _ in range(n_rows)] for name in names}
    return pl.DataFrame(columns)


@pytest.mark.parametrize("name", ENDING)
def test_what_is_written_is_read_back(name: str) -> None:
    module = formats()[name]

    @given(logs(module.HOLDS))
    @settings(max_examples=40)
    def check(log: pl.DataFrame) -> None:
        with folder() as place:
            start, out, back = place / "start.parquet", place / f"out{ENDING[name]}", place / "back.parquet"
            log.write_parquet(start)
            forbidden = getattr(module, "FORBIDDEN", None)
            texts = [column for column in log.columns if log.schema[column] == pl.String]
            if forbidden and log.select(pl.col(texts).str.contains(forbidden).any()).transpose().to_series().any():
                with pytest.raises(DataError, match="cannot hold"):
                    convert(Source(path=str(start)), out, to=name)
                assert [path.name for path in place.iterdir()] == ["start.parquet"]
                return
            convert(Source(path=str(start)), out, to=name)
            import_log(Source(path=str(out), format=name), back)
            again = pl.read_parquet(back)
            if name == "lightgcn":  # keeps users together
                order = dict.fromkeys(log["user_id"])
                log = pl.concat([log.filter(pl.col("user_id") == user) for user in order])
            assert again.equals(log.cast(again.schema)), (again, log)

    check()


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@given(log=logs(COLUMNS))
@settings(max_examples=15)
def test_every_separator(separator: str, log: pl.DataFrame) -> None:
    with folder() as place:
        log.write_csv(place / "log.csv", separator=separator)
        again = read(Source(path=str(place / "log.csv"))).sort("row").drop("row").collect()
        assert again.equals(log.cast(again.schema))


VALID = {
    "csv": b"user_id,item_id,behavior,timestamp,weight,label\n"
    b'1,"a ""b""",view,1500000000,1,0.5\n2,c,buy,1500000001,2,1\n',
    "jsonl": b'{"user_id": 1, "item_id": "a", "timestamp": 1500000000}\n'
    b'{"user_id": "2", "item_id": "b", "timestamp": 1}\n',
    "atomic": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3\t881250949\n2\t3\t4\t891717742\n",
    "movielens": b"1::1193::5::978300760\n1::661::3::978302109\n",
    "lightgcn": b"0 1 2 3\n1 4\n2\n",
    "edges": b"0\t1\t4\n0\t2\t1\n",
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` with a few bytes changed, cut out, doubled, or put in."""
    for _ in range(rng.randint(1, 3)):
        at, to = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
        odd = rng.choice([b"\x00", b"\xff", b'"', b"\n", b"\r", b"\r\n", b",", b"\t", b" ", b"::", b":", b"-", b"nan",
                          b"1e999", b"9" * 30, b"{", b"[", b"\xef\xbb\xbf", b"\\", "é😀".encode()])  # fmt: skip
        kind = rng.randrange(4)
        if kind == 0:
            data = data[:at] + odd + data[at:]
        elif kind == 1:
            data = data[: min(at, to)] + data[max(at, to) :]
        elif kind == 2:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        else:
            data = data[:at] + data[min(at, to) : max(at, to)] + data[at:]
    return data


def survives(data: bytes, name: str, place: Path) -> bool:
    """Whether ``data`` was read; anything but a frame or a DataError of one line fails the test."""
    path = place / "log"
    path.write_bytes(data)
    try:
        frame = read(Source(path=str(path), format=name)).collect()
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return False
    assert frame["user_id"].null_count() == frame["item_id"].null_count() == 0 < len(frame)
    return True


@pytest.mark.parametrize("name", [*VALID, "parquet", "auto"])
def test_fuzzed_files_raise_only_data_errors(name: str, tmp_path: Path) -> None:
    rng = random.Random(name)
    start = tmp_path / "start.parquet"
    pl.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"], "timestamp": [1, 2]}).write_parquet(start)
    seeds = [VALID[name]] if name in VALID else [start.read_bytes()]
    if name == "auto":
        seeds = [*VALID.values(), *seeds]
    read_well = 0
    for round_ in range(150):
        data = mutated(rng.choice(seeds), rng) if round_ % 5 else rng.randbytes(rng.randrange(200))
        read_well += survives(data, name, tmp_path)
    assert read_well >= 5  # the mutations are not all fatal
