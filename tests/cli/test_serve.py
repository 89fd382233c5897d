"""``serve`` refuses what would be unsafe before it loads anything; ``keys`` makes, lists and removes keys."""

import json
from pathlib import Path

import pytest

from macrorec.cli import status
from macrorec.serve import auth
from macrorec.serve.server import bind


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = status([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "keys.json"


def test_a_key_is_shown_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, key, note = outcome(capsys, "keys", "make", file, "shop", "--rate", "50")
    assert code == 0 and key.startswith("shop.") and key.count("\n") == 1
    assert note == f"shop is in {file}; a server that runs with it lets it in within seconds\n"
    code, out, _ = outcome(capsys, "keys", "make", file, "ops", "--admin", "--json")
    made = json.loads(out)
    assert (code, made["name"], made["role"]) == (0, "ops", "admin")
    keys = auth.Keys(file)
    assert keys.find(key.strip().encode()) and keys.find(made["key"].encode()) and keys.has_admin
    code, out, _ = outcome(capsys, "keys", "list", file, "--json")
    rows = json.loads(out)["keys"]
    assert [(row["name"], row["role"], row["rate"]) for row in rows] == [
        ("shop", "client", 50.0),
        ("ops", "admin", None),
    ]
    code, out, _ = outcome(capsys, "keys", "list", file)
    assert code == 0 and "ops   admin" in out and key.strip().partition(".")[2] not in out
    assert outcome(capsys, "keys", "remove", file, "ops")[0] == 0
    assert not auth.Keys(file).has_admin


def test_mistakes_with_keys_are_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome(capsys, "keys", "make", file, "shop")
    for arguments, line in (
        (
            ("make", file, "shop"),
            f"error: {file} has a key named 'shop'; choose another name, or remove that one first\n",
        ),
        (("remove", file, "nobody"), f"error: {file} has no key named 'nobody'; it has shop\n"),
        (("list", file.parent / "other"), f"error: {file.parent / 'other'} cannot be read: No such file or directory"),
        (("make", file, "a b"), "error: a key's name is 1 to 40 letters, digits, '-' or '_'; not 'a b'\n"),
    ):
        code, out, err = outcome(capsys, "keys", *arguments)
        assert (code, out) == (2, "") and err.startswith(line) and err.count("\n") == 1


def test_a_public_address_needs_keys_or_consent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "serve", tmp_path / "absent", "--host", "0.0.0.0")
    assert (code, out) == (2, "") and err.startswith("error: --host 0.0.0.0 can be reached from other machines")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--durability", "perhaps"], "error: --durability is 'perhaps'; allowed are fsync, interval, none\n"),
        (["--rate", "0"], "error: rate is 0.0; it must be positive\n"),
        (["--drain", "-1"], "error: drain_seconds is -1.0; it must be at least 0\n"),
        (["--api-keys", "absent.json"], "error: absent.json cannot be read: No such file or directory; make keys with"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = outcome(capsys, "serve", tmp_path / "absent", *arguments)
    assert (code, out) == (2, "") and err.startswith(line) and err.count("\n") == 1


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = outcome(capsys, "serve", tmp_path / "absent", "--port", port, "--data", tmp_path / "data")
    assert code == 2 and err == f"error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert not (tmp_path / "data").exists()
