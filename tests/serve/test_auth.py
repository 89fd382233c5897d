"""Keys: made once, stored as hashes, found in constant time, and shut out when they are removed."""

import json
import os
from pathlib import Path

import pytest

from macrorec.errors import ConfigError, DataError
from macrorec.serve import auth
from macrorec.serve.auth import Keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_opens_and_the_file_holds_its_hash_alone(file: Path) -> None:
    key = auth.make(file, "shop", "client", 5.0)
    name, _, secret = key.partition(".")
    assert name == "shop" and len(secret) == 43
    assert secret not in file.read_text() and oct(file.stat().st_mode & 0o777) == "0o600"
    found = Keys(file).find(key.encode())
    assert found is not None and (found.name, found.role, found.rate) == ("shop", "client", 5.0)


@pytest.mark.parametrize(
    "change", ["", "x", "shop", "shop.", ".", "SECRET", "other.SECRET", "shop.SECRETx", "shop.SECRE"]
)
def test_nothing_else_opens(file: Path, change: str) -> None:
    secret = auth.make(file, "shop", "client").partition(".")[2]
    assert Keys(file).find(change.replace("SECRET", secret).encode()) is None


def test_each_key_has_its_own_secret_and_role(file: Path) -> None:
    made = {name: auth.make(file, name, role) for name, role in (("a", "client"), ("b", "admin"))}
    keys = Keys(file)
    assert keys.has_admin and len(keys) == 2
    assert {name: keys.find(key.encode()).role for name, key in made.items()} == {"a": "client", "b": "admin"}
    assert keys.find(b"a." + made["b"].partition(".")[2].encode()) is None


def test_a_removed_key_is_shut_out_by_a_server_that_runs(file: Path) -> None:
    first, second = auth.make(file, "first", "client"), auth.make(file, "second", "admin")
    keys = Keys(file)
    assert not keys.refresh()
    auth.remove(file, "second")
    assert keys.refresh() and not keys.has_admin
    assert keys.find(first.encode()) and not keys.find(second.encode())
    auth.remove(file, "first")
    assert keys.refresh() and len(keys) == 0 and keys.required  # nobody, not everybody
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        keys.refresh()


def test_without_a_file_nothing_is_required() -> None:
    keys = Keys()
    assert not keys.required and not keys.has_admin and not keys.refresh() and keys.find(b"a.b") is None


def test_names_rates_and_what_is_there_are_checked(file: Path) -> None:
    auth.make(file, "shop", "client")
    with pytest.raises(ConfigError, match="has a key named 'shop'"):
        auth.make(file, "shop", "client")
    for name in ("", "a b", "a.b", "a" * 41, "é"):
        with pytest.raises(ConfigError, match="a key's name is"):
            auth.make(file, name, "client")
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="a key's rate is"):
            auth.make(file, "other", "client", rate)
    with pytest.raises(ConfigError, match="no key named 'other'; it has shop"):
        auth.remove(file, "other")
    assert [key.name for key in auth.load(file)] == ["shop"]


def test_a_file_that_others_can_read_is_refused(file: Path) -> None:
    auth.make(file, "shop", "client")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keys(file)


ROW = {"name": "a", "role": "client", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "\xff",
        json.dumps({"keys": [ROW, ROW]}),
        json.dumps({"keys": [{**ROW, "sha256": "0"}]}),
        json.dumps({"keys": [{**ROW, "name": "a.b"}]}),
        json.dumps({"keys": [{**ROW, "role": "root"}]}),
        json.dumps({"keys": [{**ROW, "more": 1}]}),
        json.dumps({"keys": [{"name": "a", "role": "client", "key": "in clear"}]}),
    ],
)
def test_a_damaged_file_is_refused(file: Path, content: str) -> None:
    file.write_text(content, encoding="latin-1")
    os.chmod(file, 0o600)  # noqa: PTH101
    with pytest.raises(DataError, match=r"is not a file of keys|two keys of one name"):
        Keys(file)
