"""A model that one process loads is served by all, and by who comes later; whoever began with another one stays."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.serve.stores import RedisServer, redis_server, unused

from macrorec.errors import DataError
from macrorec.serve.fleet import Together
from macrorec.serve.redis_log import RedisLog


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


class FakeService:
    """Serves folders; a folder's version is its name."""

    def __init__(self, folder: Path) -> None:
        self.served, self.broken = [folder], False

    @property
    def version(self) -> SimpleNamespace:
        return SimpleNamespace(deployment=SimpleNamespace(folder=self.served[-1]))

    def model(self) -> dict[str, str]:
        return {"version": self.served[-1].name}

    def reload(self, folder: str | Path | None = None) -> str:
        if self.broken:
            raise DataError("damaged")
        self.served.append(self.served[-1] if folder is None else Path(folder))
        return self.served[-1].name

    def rollback(self) -> str:
        self.served.append(self.served[-2])
        return self.served[-1].name


@pytest.fixture
def join(server: RedisServer) -> Iterator[Callable[[FakeService], Together]]:
    name, logs = unused(), []

    def join(service: FakeService) -> Together:
        logs.append(RedisLog(server.url, name=name))
        return Together(service, logs[-1])

    yield join
    for log in logs:
        log.close()
    for thread in threading.enumerate():
        if thread.name == "reload":
            thread.join(10)


def soon(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_all_serve_what_one_loads(join: Callable[[FakeService], Together], tmp_path: Path) -> None:
    services = [FakeService(tmp_path / "a") for _ in range(3)]
    fleet = [join(service) for service in services]
    assert fleet[0].reload(tmp_path / "b") == "b"
    soon(lambda: [service.model()["version"] for service in services] == ["b"] * 3)
    assert fleet[2].reload(str(tmp_path / "c")) == "c"
    soon(lambda: [service.model()["version"] for service in services] == ["c"] * 3)
    assert fleet[2].rollback() == "b"
    soon(lambda: [one.model()["version"] for one in fleet] == ["b"] * 3)
    assert [service.served[-1] for service in services] == [tmp_path / "b"] * 3
    time.sleep(0.1)
    assert len(services[2].served) == 4  # nobody loads what it serves already


def test_who_comes_later_serves_it_too(join: Callable[[FakeService], Together], tmp_path: Path) -> None:
    join(FakeService(tmp_path / "a")).reload(tmp_path / "b")
    assert join(FakeService(tmp_path / "a")).model() == {"version": "b"}
    other = join(FakeService(tmp_path / "x"))  # begun anew, with another bundle
    assert other.model() == {"version": "x"}
    other.reload(tmp_path / "y")
    assert join(FakeService(tmp_path / "x")).model() == {"version": "y"}


def test_one_that_cannot_load_it_serves_what_it_has(
    join: Callable[[FakeService], Together], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = FakeService(tmp_path / "a"), FakeService(tmp_path / "a")
    fleet = [join(good), join(bad)]
    bad.broken = True
    fleet[0].reload(tmp_path / "b")
    soon(lambda: "cannot be loaded: damaged" in caplog.text)
    assert bad.model() == {"version": "a"}
    with pytest.raises(DataError):
        fleet[1].reload(tmp_path / "c")
    bad.broken = False
    fleet[0].reload(tmp_path / "d")
    soon(lambda: bad.model() == {"version": "d"})
    assert good.model() == {"version": "d"}
