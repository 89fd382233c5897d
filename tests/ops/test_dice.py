import math

import pytest
import torch
from torch.autograd import gradcheck

from macrorec.ops.dice import Dice


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dice_by_hand(x, mean, variance, alpha):
    p = sigmoid((x - mean) / math.sqrt(variance + 1e-8))
    return p * x + (1 - p) * alpha * x


def test_training_takes_the_statistics_of_the_batch():
    dice = Dice(1).double()
    torch.nn.init.constant_(dice.alpha, 0.3)
    x = [1.0, 2.0, 6.0]  # mean 3, variance (4 + 1 + 9) / 3
    expected = [dice_by_hand(value, 3, 14 / 3, 0.3) for value in x]
    assert dice(torch.tensor(x, dtype=torch.float64)[:, None]).squeeze(1).tolist() == pytest.approx(expected)


def test_evaluation_takes_running_statistics_of_which_the_first_batch_counts_in_full():
    dice = Dice(1, momentum=0.1).double()
    first, second = [1.0, 2.0, 6.0], [0.0, 4.0]  # means 3 and 2, unbiased variances 7 and 8
    dice(torch.tensor(first, dtype=torch.float64)[:, None])
    mean, variance = (value.item() for value in dice.statistics())
    assert (mean, variance) == pytest.approx((3, 7))
    dice(torch.tensor(second, dtype=torch.float64)[:, None])
    mean, variance = (value.item() for value in dice.statistics())
    assert (mean, variance) == pytest.approx(((0.09 * 3 + 0.1 * 2) / 0.19, (0.09 * 7 + 0.1 * 8) / 0.19))
    dice.eval()
    assert dice(torch.tensor([[5.0]]).double()).item() == pytest.approx(dice_by_hand(5, mean, variance, 0))


def test_evaluation_of_a_row_does_not_depend_on_its_batch_mates():
    dice = Dice(4)
    dice(random(32, 4).float())
    dice.eval()
    x = random(9, 4, seed=1).float()
    before = [value.clone() for value in dice.state_dict().values()]
    torch.testing.assert_close(dice(x), torch.cat([dice(row[None]) for row in x]), rtol=1e-6, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(before, dice.state_dict().values(), strict=True))


def test_a_batch_of_one_trains_by_the_averages_and_leaves_them():
    dice = Dice(2).double()
    first = dice(torch.tensor([[0.5, -2.0]], dtype=torch.float64))
    assert first.tolist()[0] == pytest.approx([dice_by_hand(0.5, 0, 1, 0), dice_by_hand(-2, 0, 1, 0)])
    dice(random(16, 2))
    before = [value.clone() for value in dice.statistics()]
    one = random(1, 2, seed=3).requires_grad_()
    dice(one).sum().backward()
    assert one.grad.count_nonzero() == 2
    assert all(torch.equal(a, b) for a, b in zip(before, dice.statistics(), strict=True))


def test_statistics_are_stored():
    dice, other = Dice(3), Dice(3)
    dice(random(8, 3).float())
    other.load_state_dict(dice.state_dict())
    x = random(5, 3, seed=1).float()
    assert torch.equal(dice.eval()(x), other.eval()(x))
    assert {"running_mean", "running_var", "seen", "alpha"} == set(dice.state_dict())


def test_constant_units_stay_finite():
    dice = Dice(1)
    x = torch.full((8, 1), 3.0, requires_grad=True)
    dice(x).sum().backward()
    assert x.grad.isfinite().all()
    assert dice.eval()(torch.tensor([[3.0], [4.0], [-1e9]])).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_gradients(training):
    dice = Dice(3).double()
    dice(random(20, 3, seed=5))
    dice.train(training)
    torch.nn.init.constant_(dice.alpha, 0.2)
    assert gradcheck(
        lambda x, alpha: torch.func.functional_call(dice, {"alpha": alpha}, (x,)),
        (random(6, 3).requires_grad_(), dice.alpha.detach().clone().requires_grad_()),
    )
