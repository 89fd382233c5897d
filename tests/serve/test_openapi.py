"""The OpenAPI document tells the truth: schemathesis asks every route what it allows, and what it does not."""

import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks
from tests.serve import market
from tests.serve.fakes import FakeService, Running, running

from macrorec.serve import auth
from macrorec.serve.http import OPERATIONS
from macrorec.serve.problems import KINDS
from macrorec.serve.service import Service
from macrorec.serve.settings import Settings
from macrorec.serve.sqlite_log import SqliteLog


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    key = auth.make(file, "ops", "admin")
    with running(FakeService(), keys=auth.Keys(file)) as server:
        yield server, key


@pytest.fixture(scope="module")
def document(admin: tuple[Running, str]) -> Any:
    return admin[0].get("/openapi.json").json()


def test_every_route_is_described_with_examples(document: Any) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}
    for operation in OPERATIONS:
        route = document["paths"][operation.path][operation.method.lower()]
        answers = route["responses"]
        assert route["summary"] and route["operationId"] == operation.name
        assert {"200", "400", "421", "500"} <= set(answers)
        if operation.access != "open":
            assert {"401", "429"} <= set(answers) and route["security"]
        if operation.access == "admin":
            assert "403" in answers and {} not in route["security"]
        if "requestBody" in route:
            assert {"413", "415", "422"} <= set(answers)
            assert route["requestBody"]["content"]["application/json"]["examples"]
        for answer in answers.values():
            assert all(content["examples"] for content in answer["content"].values())
        for status in {"429", "503", "507"} & set(answers):
            assert "Retry-After" in answers[status]["headers"]
        for parameter in route["parameters"]:
            assert parameter["in"] != "path" or parameter["examples"]


def test_its_examples_are_taken(admin: tuple[Running, str], document: Any) -> None:
    http, key = admin
    http.shared.service.former = "c" * 12
    for operation in OPERATIONS:
        route = document["paths"][operation.path][operation.method.lower()]
        examples = {one["name"]: one["examples"]["id"]["value"] for one in route["parameters"] if one["in"] == "path"}
        path = re.sub(r"\{(\w+)\}", lambda found, known=examples: known[found[1]], operation.path)
        body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
        sent = body["body"]["value"] if body else None
        if operation.name == "reload":
            sent = {}  # the bundle of the example is not there
        answer = http.client.request(operation.method, path, json=sent, headers={"x-api-key": key})
        assert answer.status_code == 200, (operation.name, answer.text)


def test_references_lead_somewhere_and_every_problem_has_its_type(document: Any) -> None:
    names = set(re.findall(r'"#/components/schemas/(\w+)"', msgspec.json.encode(document).decode()))
    assert names <= set(document["components"]["schemas"])
    types = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert types == [f"urn:macrorec:problem:{kind}" for kind in KINDS]


LEFT_OUT = [
    openapi_checks.positive_data_acceptance,  # times, pages and shut doors are told in words, not in the schema
    openapi_checks.ignored_auth,  # a server without keys has none to ask for; tests of keys stand in test_http.py
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_schemathesis(admin: tuple[Running, str], operation: Any) -> None:
    admin[0].shared.service.former = "c" * 12
    ask_what_is_allowed_and_what_is_not(*admin, operation, 30, LEFT_OUT)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    """A real service behind it, with its log and snapshots."""
    folder = tmp_path_factory.mktemp("real")
    key = auth.make(folder / "keys.json", "ops", "admin")
    with SqliteLog(folder / "log.sqlite") as log:
        service = Service(market.write(folder / "bundles"), log, folder / "snapshots")
        settings = Settings(wait_ms=60_000, bundles=folder / "bundles")
        with running(service, settings, keys=auth.Keys(folder / "keys.json")) as server:
            yield server, key
        service.close()


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_schemathesis_on_a_real_service(real: tuple[Running, str], operation: Any) -> None:
    # Of two kinds that a field may be, it may take a change from one to the other for a mistake: told only above.
    ask_what_is_allowed_and_what_is_not(*real, operation, 100, [*LEFT_OUT, openapi_checks.negative_data_rejection])


def ask_what_is_allowed_and_what_is_not(http: Running, key: str, operation: Any, n: int, left_out: list[Any]) -> None:
    url = f"http://127.0.0.1:{http.port}"
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    api = schema[operation.path][operation.method]
    statuses = set()

    allowed, forbidden = (api.as_strategy(generation_mode=mode) for mode in GenerationMode)

    @hypothesis.given(case=allowed | forbidden)
    @hypothesis.settings(
        max_examples=n,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        answer = case.call(headers={"X-API-Key": key}, timeout=20)
        case.validate_response(answer, excluded_checks=left_out)
        statuses.add(answer.status_code)

    ask()
    assert statuses and max(statuses) < 500
