"""The image, the compose file and the unit are what they should be, as far as can be told without running them."""

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.house import ROOT

from macrorec.cli import load
from macrorec.serve.redis_server import promised

PACKAGING = ROOT / "packaging"


def taken(words: list[str]) -> dict[str, Any]:
    """The options of a command line of ``macrorec serve``; fails if the program would not take it."""
    assert words[0] == "serve"
    with load("serve").make_context("serve", words[1:]) as context:
        return context.params


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments."""
    text = (PACKAGING / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


def last_stage() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, rest in instructions():
        if name == "FROM":
            found = {}
        found.setdefault(name, []).append(rest)
    return found


def words(text: str) -> list[str]:
    return yaml.safe_load(text)


def test_the_image_runs_as_nobody_special_from_pinned_stages() -> None:
    stages = [rest for name, rest in instructions() if name == "FROM"]
    assert len(stages) == 2 and stages[0].endswith(" AS build")
    assert all(re.match(r"python:3\.11-[a-z-]+( |$)", stage) for stage in stages)
    known = {"FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {name for name, _ in instructions()} <= known | {"ENTRYPOINT", "CMD"}
    order = [name for name, _ in instructions()]
    assert last_stage()["USER"] == ["10001:10001"] and "RUN" not in order[order.index("USER") :]
    assert "useradd --system --uid 10001" in last_stage()["RUN"][0]


def test_the_image_is_built_from_files_that_are_there() -> None:
    ignored = (PACKAGING / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from=build"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists() and f"!{source}" in ignored
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    installed = next(rest for name, rest in instructions() if name == "RUN" and '".[' in rest)
    assert set(re.search(r'"\.\[(.*?)\]"', installed)[1].split(",")) <= extras.keys()


def test_the_image_serves_and_looks_after_its_health() -> None:
    stage = last_stage()
    assert words(stage["ENTRYPOINT"][0]) == ["macrorec"]
    options = taken(words(stage["CMD"][0]))
    assert (options["host"], options["port"], stage["EXPOSE"]) == ("0.0.0.0", 8000, ["8000"])
    assert options["api_keys"] is not None and not options["open_to_all"]
    assert str(options["data"]).startswith(stage["VOLUME"][0] + "/")
    check = words(stage["HEALTHCHECK"][0].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"] and "http://127.0.0.1:8000/api/health/ready" in check[2]
    compile(check[2], "healthcheck", "exec")
    assert stage["STOPSIGNAL"] == ["SIGTERM"]


@pytest.fixture
def services() -> dict[str, Any]:
    return yaml.safe_load((PACKAGING / "compose.yaml").read_text(encoding="utf-8"))


def test_the_store_promises_what_the_service_asks_for(services: dict[str, Any]) -> None:
    store, service = services["services"]["store"], services["services"]["service"]
    command = store["command"]
    told = {name.removeprefix("--"): value for name, value in zip(command[1::2], command[2::2], strict=True)}
    options = taken(service["command"])
    promise = promised(told)
    assert promise.covers(options["durability"]) and promise.evicts is None and told["save"] == ""
    assert "ports" not in store and services["networks"]["inside"]["internal"] is True
    assert store["networks"] == ["inside"] and "/data" in store["volumes"][0]


def test_two_workers_share_the_store(services: dict[str, Any]) -> None:
    service = services["services"]["service"]
    options = taken(service["command"])
    assert options["workers"] == 2 and service["environment"] == {"MACROREC_STORE": "redis://store:6379/0"}
    assert service["depends_on"] == {"store": {"condition": "service_healthy"}}
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    folders = {volume.split(":")[1] for volume in service["volumes"]}
    assert any(str(options["data"]).startswith(folder) for folder in folders)
    assert any(str(options["bundle"]).startswith(folder) for folder in folders)
    assert str(options["api_keys"]) == f"/run/secrets/{service['secrets'][0]}"
    assert (PACKAGING / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["store", "service"])
def test_containers_may_do_little(services: dict[str, Any], name: str) -> None:
    one = services["services"][name]
    assert one["read_only"] and one["cap_drop"] == ["ALL"] and one["security_opt"] == ["no-new-privileges:true"]
    assert not one.get("privileged") and one["restart"] == "unless-stopped"
    for volume in one["volumes"]:
        source = volume.split(":")[0]
        assert source in services["volumes"] or (source.startswith("../") and volume.endswith(":ro"))


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(PACKAGING / "macrorec.service", encoding="utf-8")
    return parser


def test_the_unit_runs_what_the_program_takes() -> None:
    service = unit()["Service"]
    program, *rest = shlex.split(service["ExecStart"])
    options = taken(rest)
    assert program == "/opt/macrorec/bin/macrorec" and options["host"] == "127.0.0.1"
    assert service["DynamicUser"] == "yes" and service["KillSignal"] == "SIGTERM"
    assert str(options["api_keys"]) == "${CREDENTIALS_DIRECTORY}/keys.json"
    assert service["LoadCredential"].startswith("keys.json:")


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze: not even a GPU has it"
)
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Where there is no systemd, the test above has to do."""
    if shutil.which("systemd-analyze") is None:
        return
    text = (PACKAGING / "macrorec.service").read_text(encoding="utf-8")
    copy = tmp_path / "macrorec.service"
    copy.write_text(text.replace("/opt/macrorec/bin/macrorec", shutil.which("true") or ""), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", copy], capture_output=True, text=True
    )
    assert rated.returncode == 0, rated.stdout[-500:]
