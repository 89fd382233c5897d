import math
from typing import Any

import pytest

from macrorec.errors import ConfigError
from macrorec.train.config import TrainConfig


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("validate_every", -1, "at least 1"),
        ("threads", 0, "at least 1"),
        ("lr", 0.0, "finite and above 0"),
        ("lr", math.nan, "finite and above 0"),
        ("lr", math.inf, "finite and above 0"),
        ("clip_norm", -1.0, "finite and above 0"),
        ("weight_decay", -0.1, "finite and at least 0"),
        ("weight_decay", math.nan, "finite and at least 0"),
        ("average", 1.0, "at least 0 and below 1"),
        ("average", -0.1, "at least 0 and below 1"),
        ("average", math.nan, "at least 0 and below 1"),
        ("checkpoint_seconds", -1.0, "finite and at least 0"),
        ("optimizer", "lion", "adam, sgd or adagrad"),
        ("keep", "first", "best or last"),
    ],
)
def test_values_outside_their_range(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{name: value})
    assert str(caught.value) == f"{name} must be {allowed}, not {value!r}"


def test_patience_is_a_count_and_needs_a_metric() -> None:
    with pytest.raises(ConfigError, match="patience must be at least 1, not 0"):
        TrainConfig(monitor="auc", patience=0)
    with pytest.raises(ConfigError, match="patience needs a validation metric to watch: set monitor"):
        TrainConfig(patience=5)


def test_values_at_the_edge() -> None:
    TrainConfig(
        epochs=1, batch_size=1, threads=1, weight_decay=0.0, checkpoint_seconds=0.0, clip_norm=1e-9, patience=None
    )
