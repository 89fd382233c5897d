"""The guide's commands and its client work, against a server with keys."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serve.fakes import FakeService, Running, running

from macrorec.serve import auth

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "http.md").read_text(encoding="utf-8")
CURLS = re.findall(r"^curl .*$", PAGE, re.MULTILINE)


def curl(http: Running, line: str, key: str) -> int:
    """The status of what a curl command would ask."""
    words = shlex.split(line.replace("$URL", "").replace("$KEY", key))[1:]
    method, headers, content, path = "GET", {}, None, ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "--json":
            method, content, headers["content-type"] = "POST", words.pop(0), "application/json"
        else:
            path = word
    return http.client.request(method, path, headers=headers, content=content).status_code


@pytest.fixture
def shop(tmp_path: Path) -> tuple[auth.Keys, str]:
    key = auth.make(tmp_path / "keys.json", "shop", "client")
    return auth.Keys(tmp_path / "keys.json"), key


def test_the_curl_commands(shop: tuple[auth.Keys, str]) -> None:
    keys, key = shop
    assert len(CURLS) >= 9
    with running(FakeService(), keys=keys) as http:
        for line in CURLS:
            assert curl(http, line, key) == 200, line
            assert curl(http, line, "shop.wrong") == 401, line


def test_the_python_client(shop: tuple[auth.Keys, str]) -> None:
    keys, key = shop
    client, use = (re.search(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)[1] for name in ("python", "py"))  # type: ignore[index]
    with running(FakeService(), keys=keys) as http:
        use = use.replace("http://localhost:8000", f"http://127.0.0.1:{http.port}").replace("shop.the-secret", key)
        code = client + use + "shop.post([{}])\n"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("1 i7 ") and done.stdout.count("\n") == 3
    assert re.search(r"RuntimeError: user_id is missing \([0-9a-f]{16}\)$", done.stderr.strip())
