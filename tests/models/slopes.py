"""Are a model's gradients the slopes of a literal loss? Checked number by number."""

from collections.abc import Callable, Mapping

import pytest
from torch import Tensor

from macrorec.api import Model


def assert_gradients(
    model: Model, terms: Mapping[str, Tensor], literal: Callable[[], Mapping[str, float]], step: float = 1e-5, **near
) -> None:
    """The gradient of the sum of ``terms`` is the central difference of ``literal()``, which reads the parameters."""
    sum(terms.values()).backward()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().view(-1)
        for place, before in enumerate(flat.tolist()):
            ends = []
            for moved in (before + step, before - step):
                flat[place] = moved
                ends.append(sum(literal().values()))
            flat[place] = before
            slope = (ends[0] - ends[1]) / (2 * step)
            assert parameter.grad.view(-1)[place].item() == pytest.approx(slope, **near), (name, place)
