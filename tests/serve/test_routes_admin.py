"""What an admin may load, and what not even an admin may."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serve.fakes import FakeService, Running, running

from macrorec.errors import DataError
from macrorec.serve import auth
from macrorec.serve.settings import Settings


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("admin")
    for name in ("bundles/new", "bundles/.hidden", "outside"):
        (folder / name).mkdir(parents=True)
    key = auth.make(folder / "keys.json", "ops", "admin")
    settings = Settings(bundles=folder / "bundles")
    with running(FakeService(), settings, auth.Keys(folder / "keys.json"), headers={"x-api-key": key}) as server:
        yield server


def test_reload_rollback_snapshot(admin: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    service, asked = admin.shared.service, []
    reload = service.reload
    monkeypatch.setattr(service, "reload", lambda folder: (asked.append(folder), reload(folder))[1])
    assert admin.post("/api/admin/reload", json={"bundle": "new"}).json() == {"version": "b" * 12}
    assert admin.post("/api/admin/rollback").json() == {"version": "a" * 12}
    assert admin.post("/api/admin/rollback").status_code == 422  # there is none before
    assert admin.post("/api/admin/reload", json={}).status_code == 200
    assert asked == [admin.shared.settings.bundles / "new", None]
    assert admin.post("/api/admin/snapshot").json() == {"position": 0}


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        ".hidden",
        "../outside",
        "/etc",
        "new/../../outside",
        "new\x00",
        "",
        "absent",
        "a" * 300,
        "\n",
        7,
        ["new"],
    ],
    ids=str,
)
def test_names_that_lead_elsewhere(admin: Running, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin.shared.service, "reload", lambda folder: pytest.fail("loaded"))
    assert admin.post("/api/admin/reload", json={"bundle": name}).status_code == 422
    assert admin.post("/api/admin/reload", json={"folder": "new"}).status_code == 422


def test_a_damaged_bundle_is_refused_and_what_is_served_stays(admin: Running, tmp_path: Path) -> None:
    service = admin.shared.service
    before = service.version
    service.fail = DataError("items.parquet is damaged: its sha256 is not the one in manifest.json")
    answer = admin.post("/api/admin/reload", json={"bundle": "new"})
    service.fail = None
    assert answer.status_code == 422 and "is damaged" in answer.json()["detail"]
    assert admin.get("/api/model").json()["version"] == before
