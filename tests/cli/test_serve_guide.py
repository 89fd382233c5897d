"""The guide's way from a log to a service, another model, and the end: played by a shell as it stands there."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "serving.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl in PATH")
def test_the_commands_do_what_the_guide_says(tmp_path: Path) -> None:
    for name, text in re.findall(r"```toml\n# (\w+\.toml)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).replace("8000", str(port))
    lines = re.sub(r"^curl ", r"curl -sS --fail-with-body -w '\\n' ", lines, flags=re.MULTILINE)
    script = "set -e -m\ntrap 'kill %1 2> /dev/null || true' EXIT\n" + lines.replace("do sleep", "do kill -0 %1; sleep")
    (tmp_path / "macrorec").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m macrorec "$@"\n')
    (tmp_path / "macrorec").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "no_proxy": "*"}
    command = ["timeout", "--foreground", "400", "bash", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=420)
    assert done.returncode == 0, done.stdout + done.stderr
    ready, answer, snapshot, loaded, back, gone = (
        json.loads(line) for line in re.findall(r"^(\{.*?\})(?:\d.*)?$", done.stdout, re.MULTILINE)
    )
    assert ready == {"status": "ready"} and snapshot == {"position": 1} and gone == {"events": 1}
    assert (answer["path"], answer["position"], len(answer["items"])) == ("fold_in", 1, 3) and answer["ranked"] > 100
    assert loaded["version"] != back["version"] == answer["version"]
    assert "all is sound" in done.stdout
