"""Settings are checked, and nobody opens a server to the world by mistake."""

from dataclasses import fields

import pytest

from macrorec.errors import ConfigError
from macrorec.serve.settings import LOOPBACK_NAMES, Settings, check_bind, is_loopback


@pytest.mark.parametrize("name", [field.name for field in fields(Settings) if field.type in ("int", "float")])
def test_a_limit_below_its_least_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is -1; it must be"):
        Settings(**{name: -1})


def test_a_limit_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="rate is nan; it must be positive"):
        Settings(rate=float("nan"))


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")),
    ],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_a_public_address_needs_keys_or_consent() -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        check_bind("0.0.0.0", has_keys=False, open_to_all=False)
    assert check_bind("0.0.0.0", has_keys=True, open_to_all=False) is None
    assert check_bind("0.0.0.0", has_keys=False, open_to_all=True) is None
    assert check_bind("127.0.0.1", has_keys=False, open_to_all=False) == LOOPBACK_NAMES
