import pytest
import torch

from macrorec.ops.descent import descend

SCALE_B = torch.tensor([1.0, 100.0, 1e-3])
GOAL_BD = torch.tensor([[1.0, -2.0], [0.3, 0.0], [-1.0, 0.5]])


def bowl(rows):
    return lambda x_BD: SCALE_B[rows] * (x_BD - GOAL_BD[rows]).square().sum(1)


def test_bowls_of_any_scale_are_descended():
    got = descend(bowl([0, 1, 2]), torch.zeros(3, 2), steps=300, lr=0.05)
    torch.testing.assert_close(got, GOAL_BD, atol=2e-3, rtol=0)


def test_rows_do_not_see_each_other():
    got = descend(bowl([0, 1, 2]), torch.zeros(3, 2), steps=20, lr=0.05)
    for row in range(3):
        torch.testing.assert_close(descend(bowl([row]), torch.zeros(1, 2), steps=20, lr=0.05), got[row : row + 1])


def test_the_first_step_has_the_length_of_the_rate():
    got = descend(bowl([0]), torch.zeros(1, 2), steps=1, lr=0.1)
    assert got.tolist() == [pytest.approx([0.1, -0.1])]


def test_gradients_stay_inside():
    start = torch.zeros(1, 2, requires_grad=True)
    with torch.no_grad():
        got = descend(bowl([0]), start, steps=3, lr=0.1)
    assert not got.requires_grad and start.grad is None and start.tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(descend(bowl([0]), start, steps=3, lr=0.1), got)
