"""``bench`` prints a table or one JSON object, says on standard error what it does, and refuses in one line."""

import json
from pathlib import Path

import pytest
from tests.serve.market import write

from macrorec.cli import status

BRIEF = ("--requests", "12", "--candidates", "6", "--events", "7", "--threads", "2")


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = status([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write(tmp_path / "shop")
    code, out, err = outcome(capsys, "bench", place, *BRIEF, "--folder", tmp_path, "--seed", 5, "--json")
    found = json.loads(out)
    assert (code, err.count("\n")) == (0, 5)
    assert list(found) == [
        *("bundle", "version", "retriever", "ranker", "search", "users", "items", "requests", "candidates", "seed"),
        *("known", "changed", "event_to_answer", "events", "peak_rss_bytes"),
    ]
    assert (found["users"], found["items"], found["requests"], found["candidates"], found["seed"]) == (12, 30, 12, 6, 5)
    for kind, path in (("known", "model"), ("changed", "fold_in")):
        assert list(found[kind]) == ["paths", "milliseconds", "per_second"] and found[kind]["paths"] == {path: 12}
        assert all(list(took) == ["p50", "p99"] for took in found[kind]["milliseconds"].values())
    assert list(found["event_to_answer"]) == ["events", "changed", "p50", "p99"]
    assert list(found["events"]) == ["stored", "threads", "per_second", "p50", "p99", "flushes_per_second"]
    code, out, _ = outcome(capsys, "bench", place, *BRIEF, "--folder", tmp_path)
    lines = out.splitlines()
    assert code == 0 and lines[0] == f"{place}: bpr and macgnn, 12 users, 30 items; 6 candidates"
    assert lines[2] == "milliseconds  known p50  known p99  changed p50  changed p99"
    assert [line.split()[0] for line in lines[3:8]] == ["state", "retrieve", "rank", "whole", "cpu"]
    assert lines[9].endswith("of one thread (12 by model)") and lines[10].endswith("of one thread (12 by fold_in)")
    assert lines[11].endswith("12 of 12 answers changed")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["absent"], 3, "error: absent is not a bundle: there is no such folder\n"),
        (["absent", "--folder", "nowhere"], 2, "error: nowhere is no folder; name one that is, on the disk"),
        (["absent", "--requests", "0"], 2, "error: Invalid value for '--requests': Input should be greater"),
        ([], 2, "error: Missing argument 'BUNDLE'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    code: int,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = outcome(capsys, "bench", *arguments)
    assert (found, out) == (code, "") and err.startswith(line) and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
