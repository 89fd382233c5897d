import pytest
import torch

from macrorec.ops.attribution import integrated_gradient


def test_shares_of_a_product_by_hand():
    # f = x y + 3: along t (x, y) the gradient is t (y, x), whose mean is (y, x) / 2.
    gradient, start = integrated_gradient(lambda p: p[:, 0] * p[:, 1] + 3, torch.tensor([2.0, 5.0]).double())
    assert start == 3
    assert gradient.tolist() == pytest.approx([2.5, 1.0])


@pytest.mark.parametrize("steep", [1.0, 30.0, 3000.0])
def test_steep_functions_add_up(steep):
    x = torch.tensor([0.8, -0.3, 1.7], dtype=torch.float64)

    def function(points):
        return torch.sigmoid(steep * (points @ torch.tensor([1.0, 2.0, -0.7]).double() + 0.31)) + points[:, 0] ** 3

    gradient, start = integrated_gradient(function, x)
    rise = (function(x[None]) - start).item()
    assert (gradient @ x).item() == pytest.approx(rise, abs=1e-6)


def test_an_input_without_effect_has_no_share():
    gradient, _ = integrated_gradient(lambda p: p[:, 0].exp(), torch.tensor([1.0, 9.0]).double())
    assert gradient.tolist() == pytest.approx([torch.e - 1, 0])
