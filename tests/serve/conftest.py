"""A fake service behind a real server, for tests of what HTTP adds."""

from collections.abc import Iterator

import pytest
from tests.serve.fakes import FakeService, Running, running


@pytest.fixture(scope="module")
def _served() -> Iterator[Running]:
    with running(FakeService()) as server:
        yield server


@pytest.fixture
def http(_served: Running) -> Running:
    """A fake service, as new, over HTTP, with settings as they are by default, without keys."""
    _served.shared.service.__init__()
    _served.shared.seen_keys.clear()
    return _served


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> FakeService:
    """The service behind ``http``, where a test has that; else one of its own."""
    if "http" in request.fixturenames:
        service = request.getfixturevalue("http").shared.service
        assert isinstance(service, FakeService)
        return service
    return FakeService()
