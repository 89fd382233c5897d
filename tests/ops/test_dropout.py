import torch

from macrorec.ops.dropout import coins, dropout


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_coins_keep_the_expectation():
    drawn = coins(torch.empty(100_000), 0.2, generator())
    assert set(drawn.unique().tolist()) == {0.0, 1.25}
    assert abs((drawn == 0).double().mean().item() - 0.2) < 0.005


def test_dropout_is_a_product_with_coins():
    x = torch.arange(1.0, 13).view(3, 4)
    assert torch.equal(dropout(x, 0.5, generator(1)), x * coins(x, 0.5, generator(1)))
    assert not torch.equal(dropout(x, 0.5, generator(1)), dropout(x, 0.5, generator(2)))
    assert dropout(x, 0.0, generator()) is x


def test_the_gradient_is_zero_where_a_number_was_left_out():
    x = torch.ones(50, requires_grad=True)
    dropout(x, 0.5, generator()).sum().backward()
    assert torch.equal(x.grad, coins(x.detach(), 0.5, generator()))
