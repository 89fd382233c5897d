import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from macrorec.cli import status
from macrorec.data.log import Behavior
from macrorec.recommender import fit
from macrorec.serve.sqlite_log import SqliteLog

ROWS = [{"user_id": f"u{n % 3}", "item_id": n, "behavior": "buy", "timestamp": 1_700_000_000 + n} for n in range(8)]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"user_id": "u"}\nnot json\n')
    return path


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, object]:
    assert status([*map(str, words), "--json"]) == 0
    result: dict[str, object] = json.loads(capsys.readouterr().out)
    return result


def test_a_file_is_added_once(tmp_path: Path, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert status(["ingest", str(lines), "--data", str(data)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("10 rows: 8 added, 0 duplicates, 2 refused; ")
    assert "line 9: item_id is missing" in err and "line 10: not JSON" in err
    lines.rename(tmp_path / "renamed")
    result = told(capsys, "ingest", tmp_path / "renamed", "--data", data, "--durability", "none")
    assert (result["added"], result["duplicates"], result["refused"]) == (0, 8, 2)
    assert result["reasons"] == [
        {"line": 9, "reason": "item_id is missing"},
        {"line": 10, "reason": "not JSON: JSON is malformed: invalid character (byte 4)"},
    ]
    with SqliteLog(data / "log.sqlite") as log:
        assert log.read(0, 100).events["item_id"].to_list() == [str(n) for n in range(8)]


def test_parquet_and_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pl.DataFrame(ROWS).with_columns(pl.from_epoch("timestamp")).write_parquet(tmp_path / "f.parquet")
    assert told(capsys, "ingest", tmp_path / "f.parquet", "--data", tmp_path)["added"] == 8
    assert told(capsys, "ingest", tmp_path / "f.parquet", "--data", tmp_path)["duplicates"] == 8
    text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    for n, added in ((5, 5), (8, 3)):
        stream = io.BytesIO(b"".join(text.splitlines(keepends=True)[:n]))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
        assert told(capsys, "ingest", "-", "--data", tmp_path, "--source", "queue")["added"] == added
    with SqliteLog(tmp_path / "log.sqlite") as log:
        events = log.read(0, 100).events
        assert events["timestamp"].to_list() == [1_700_000_000 + n % 8 for n in range(16)]


def test_milliseconds_and_a_behaviour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f"
    path.write_text('{"user": "u", "item": "i", "ts": 1700000000123}\n')
    words = ["ingest", str(path), "--data", str(tmp_path), "--behavior", "view"]
    assert status(words) == 3
    assert "none of 1 rows could be taken" in capsys.readouterr().err
    assert told(capsys, *words, "--time-unit", "ms")["added"] == 1
    with SqliteLog(tmp_path / "log.sqlite") as log:
        assert log.read(0, 1).events.row(0)[1:5] == ("u", "i", "view", 1_700_000_000)


def test_the_behaviours_and_ids_of_a_bundle(tmp_path: Path, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5], "behavior": ["view", "buy", "buy"]})
    behaviors = (Behavior(name="view", role="auxiliary"), Behavior(name="buy"))
    fit(log, "popular", behaviors=behaviors, quiet=True).save(tmp_path / "bundle")
    assert status(["ingest", str(lines), "--data", str(tmp_path), "--bundle", str(tmp_path / "bundle")]) == 3
    assert "user_id 'u0' is not an integer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["missing.jsonl", "--data", "d"], 3, "missing.jsonl is not a file"),
        (["-"], 2, "where to? Give --data DIR"),
        (["-", "--data", "d", "--url", "http://x"], 2, "where to?"),
        (["-", "--data", "d", "--time-unit", "h"], 2, "allowed are s and ms"),
        (["-", "--data", "d", "--durability", "x"], 2, "allowed are fsync, interval, none"),
        (["-", "--url", "x"], 2, "it is like http://localhost:8000"),
        (["-", "--url", "http://x", "--api-key", "missing"], 3, "missing cannot be read"),
    ],
)
def test_one_line_for_a_mistake(
    words: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    assert status(["ingest", *words]) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and says in error


def test_a_log_in_use_is_refused(tmp_path: Path, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SqliteLog(tmp_path / "log.sqlite"):
        assert status(["ingest", str(lines), "--data", str(tmp_path)]) == 4
    assert "another process has the log" in capsys.readouterr().err


def test_a_log_is_checked_and_repaired(tmp_path: Path, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "ingest", lines, "--data", tmp_path)
    result = told(capsys, "log", "check", tmp_path)
    assert (result["entries"], result["position"], result["compacted"], result["report"]) == (8, 8, 0, [])
    assert told(capsys, "log", "repair", tmp_path / "log.sqlite") == {"report": []}
    (tmp_path / "log.sqlite").write_bytes((tmp_path / "log.sqlite").read_bytes().replace(b"u0", b"u9", 1))
    assert status(["log", "check", str(tmp_path)]) == 3
    error = capsys.readouterr().err
    assert "entries 1 to 8 are not what was written" in error and "macrorec log repair" in error
    assert status(["log", "repair", str(tmp_path)]) == 0
    assert "entries 1 to 8 are lost" in capsys.readouterr().out
    assert told(capsys, "log", "check", tmp_path)["position"] == 8
    assert status(["log", "check", str(tmp_path / "nowhere")]) == 3
    assert "there is no log in" in capsys.readouterr().err


def test_broken_off_it_goes_on(tmp_path: Path) -> None:
    """A process that is interrupted while it reads a pipe keeps what it has; the same again adds the rest."""
    words = [sys.executable, "-m", "macrorec", "ingest", "-", "--data", str(tmp_path), "--source", "q"]
    text = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(text * 5_000)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().decode().splitlines()[-1] == "error: interrupted"
        assert process.wait(30) == 130
    done = subprocess.run([*words, "--json"], input=text * 5_000, capture_output=True, check=True, timeout=60)
    result = json.loads(done.stdout)
    assert result["added"] + result["duplicates"] == 40_000
    with SqliteLog(tmp_path / "log.sqlite") as log:
        assert log.last() == 40_000 and len(log.read(0, 1 << 30)) == 40_000
