"""Every model in turn, with the tests that it is known to fail.

A model declares them in ``exceptions``, {test name without ``test_``: reason}; such a test must fail, and a pass is
reported as a failure.
"""

from collections.abc import Iterator

import pytest
import torch

from macrorec import models
from macrorec.api import Model


@pytest.fixture(params=models.names())
def kind(request: pytest.FixtureRequest) -> type[Model]:
    """Each model's class in turn."""
    model = models.load(request.param)
    test = request.node.originalname.removeprefix("test_")
    if test in model.exceptions:
        request.applymarker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=model.exceptions[test]))
    return model


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
