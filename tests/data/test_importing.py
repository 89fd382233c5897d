"""An import writes the whole file or none, in the order of the log, and says what it left out."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from macrorec.data.importing import convert, import_log
from macrorec.data.sources.source import Source
from macrorec.errors import ConfigError, DataError

LOG = "user,item,event,time,value\n1,a,view,1500000000,1\n2,b,buy,1500000009,2\n1,b,view,1500000005,0.5\n"
BAD = LOG + ",c,view,1500000007,1\n3,c,view,never,1\n3,d,view,1500000007,-1\n3,e,,,x\n"


def log(folder: Path, text: str = LOG) -> Source:
    (folder / "log.csv").write_text(text)
    return Source(path=str(folder / "log.csv"))


def test_import(tmp_path: Path) -> None:
    out = tmp_path / "log.parquet"
    report = import_log(log(tmp_path), out)
    assert pl.read_parquet(out).equals(
        pl.DataFrame(
            {
                "user_id": ["1", "2", "1"],
                "item_id": ["a", "b", "b"],
                "behavior": ["view", "buy", "view"],
                "timestamp": [1500000000, 1500000009, 1500000005],
                "weight": [1.0, 2.0, 0.5],
            }
        )
    )
    assert (report.rows_read, report.rows_written, report.rejected, report.lost) == (3, 3, (), ())
    assert report.behaviors == {"view": 2, "buy": 1} and report.bytes_written == out.stat().st_size
    assert report.inference.time_unit == "s" and report.inference.times == (1500000000, 1500000009)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "log.parquet"]


def test_order_of_rows_survives(tmp_path: Path) -> None:
    n = 400_000
    import_log(
        log(tmp_path, "user,item\n" + "".join(f"{k * 7919 % n},{k}\n" for k in range(n))), tmp_path / "o.parquet"
    )
    assert pl.read_parquet(tmp_path / "o.parquet")["item_id"].cast(pl.Int64).to_list() == list(range(n))


def test_wrong_rows_stop_an_import_or_are_skipped(tmp_path: Path) -> None:
    source, out = log(tmp_path, BAD), tmp_path / "log.parquet"
    out.write_text("earlier")
    with pytest.raises(DataError, match="line 5: user_id is missing"):
        import_log(source, out)
    assert out.read_text() == "earlier"
    report = import_log(source, out, on_error="skip")
    assert pl.read_parquet(out)["item_id"].to_list() == ["a", "b", "b"]
    assert (report.rows_read, report.rows_written) == (7, 3)
    assert {r["reason"]: (r["rows"], r["first"]) for r in report.rejected} == {
        "user_id is missing": (1, "line 5"),
        "behavior is missing": (1, "line 8"),
        "timestamp is missing": (1, "line 8"),
        "timestamp is not a number": (1, "line 6 'never'"),
        "weight is not a number": (1, "line 8 'x'"),
        "weight is negative": (1, "line 7 '-1'"),
    }
    assert report.behaviors == {"view": 2, "buy": 1}


def test_skipping_forgives_neither_mixed_units_nor_a_file_without_a_good_row(tmp_path: Path) -> None:
    mixed = log(tmp_path, "user,item,time\n1,a,1500000000\n1,b,1500000000000\n")
    with pytest.raises(DataError, match="mix units"):
        import_log(mixed, tmp_path / "o.parquet", on_error="skip")
    with pytest.raises(DataError, match="every row is wrong; the first reason: user_id is missing"):
        import_log(log(tmp_path, "user,item\n,a\n,b\n"), tmp_path / "o.parquet", on_error="skip")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_broken_file_leaves_nothing(tmp_path: Path) -> None:
    text = "user,item\n" + "1,2\n" * 300_000 + "1,2,3\n"
    for earlier in (None, b"earlier"):
        out = tmp_path / "o.parquet"
        if earlier:
            out.write_bytes(earlier)
        with pytest.raises(DataError, match="line 300002 has 3 fields, the header has 2"):
            import_log(log(tmp_path, text), out)
        assert (out.read_bytes() if out.exists() else None) == earlier
        assert not list(tmp_path.glob(".partial*"))


IMPORT = "import sys; from macrorec.cli import main; main(['data', 'import', *sys.argv[1:]])"


def imported(folder: Path, *, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """``macrorec data import log.csv o.parquet`` in its own process, with files of at most ``limit`` bytes."""

    def bound() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-c", IMPORT, "log.csv", "o.parquet"],
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=bound,
    )


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    log(tmp_path, "user,item\n" + "".join(f"{k * 7919},{k}\n" for k in range(100_000)))
    (tmp_path / "o.parquet").write_text("earlier")
    done = imported(tmp_path, limit=50_000)
    assert done.returncode == 4 and done.stdout == ""
    assert done.stderr == "error: o.parquet: the disk is full (or a limit on file sizes is reached); free some\n"
    assert (tmp_path / "o.parquet").read_text() == "earlier" and not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_leave_the_earlier_file(tmp_path: Path, number: signal.Signals, code: int) -> None:
    part = "".join(f"{k * 7919},{k}\n" for k in range(200_000))
    with (tmp_path / "log.csv").open("w") as file:
        file.write("user,item\n")
        for _ in range(100):
            file.write(part)
    (tmp_path / "o.parquet").write_text("earlier")
    command = [sys.executable, "-c", IMPORT, "log.csv", "o.parquet"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in tmp_path.glob(".partial*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "error: interrupted" in err.splitlines()  # rarely, a thread of polars panics aloud before
    assert (tmp_path / "o.parquet").read_text() == "earlier" and not list(tmp_path.glob(".partial*"))


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    source = log(tmp_path)
    for out, message in (
        (tmp_path, "is a folder; give the name of a file in it"),
        (tmp_path / "no" / "o.parquet", "there is no folder .*; make it first"),
        (tmp_path / "log.csv" / "o.parquet", "there is no folder"),
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
    ):
        with pytest.raises(ConfigError, match=message):
            import_log(source, out)
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(Exception, match="Permission denied; choose a place"):
            import_log(source, tmp_path / "o.parquet")


def test_a_file_may_be_imported_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": [1, 2], "item": ["a", "b"]}).write_parquet(path)
    import_log(Source(path=str(path)), path)
    assert pl.read_parquet(path).columns == ["user_id", "item_id"]


# --- other formats ---


def test_converted_files_look_as_their_users_expect(tmp_path: Path) -> None:
    source = log(tmp_path, LOG.replace("event", "unused"))
    for name, text in {
        "o.csv": "user_id,item_id,timestamp,weight\n1,a,1500000000,1.0\n2,b,1500000009,2.0\n1,b,1500000005,0.5\n",
        "o.tsv": "user_id\titem_id\ttimestamp\tweight\n"
        "1\ta\t1500000000\t1.0\n2\tb\t1500000009\t2.0\n1\tb\t1500000005\t0.5\n",
        "o.jsonl": '{"user_id":"1","item_id":"a","timestamp":1500000000,"weight":1.0}\n'
        '{"user_id":"2","item_id":"b","timestamp":1500000009,"weight":2.0}\n'
        '{"user_id":"1","item_id":"b","timestamp":1500000005,"weight":0.5}\n',
        "o.inter": "user_id:token\titem_id:token\ttimestamp:float\tweight:float\n"
        "1\ta\t1500000000\t1.0\n2\tb\t1500000009\t2.0\n1\tb\t1500000005\t0.5\n",
    }.items():
        report = convert(source, tmp_path / name)
        assert (tmp_path / name).read_text() == text and report.rows_written == 3
    assert convert(source, tmp_path / "o.edges", allow_loss=True).lost == ("timestamp",)
    assert (tmp_path / "o.edges").read_text() == "1\ta\t1.0\n2\tb\t2.0\n1\tb\t0.5\n"
    assert convert(source, tmp_path / "o.txt", to="lightgcn", allow_loss=True).lost == ("timestamp", "weight")
    assert (tmp_path / "o.txt").read_text() == "1 a b\n2 b\n"


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    source = log(tmp_path)
    with pytest.raises(ConfigError, match=r"the ending of 'o.xls' names no format; say which: atomic, csv, edges"):
        convert(source, tmp_path / "o.xls")
    with pytest.raises(ConfigError, match="cannot write the format 'movielens'; allowed are atomic, csv, edges"):
        convert(source, tmp_path / "u.data", to="movielens")
    with pytest.raises(
        ConfigError, match="the format lightgcn cannot hold behavior, timestamp, weight; allow the loss"
    ):
        convert(source, tmp_path / "o.txt", to="lightgcn")
    for name, to in (("o.edges", "edges"), ("o.txt", "lightgcn")):  # a mark at the start of a file is no part of an id
        with pytest.raises(DataError, match="cannot hold the user_id"):
            convert(log(tmp_path, "user,item\n\ufeffa,b\n"), tmp_path / name, to=to)
    with pytest.raises(DataError, match=r"the format lightgcn cannot hold the item_id 'a b' of row 1; choose csv"):
        convert(log(tmp_path, "user,item\n1,a b\n"), tmp_path / "o.txt", to="lightgcn")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
