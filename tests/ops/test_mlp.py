import pytest
import torch

from macrorec.ops.mlp import MLP, n_weights


def small(activation="relu", dropout=0.0):
    mlp = MLP(3, (4, 2), activation, dropout)
    mlp.initialise(torch.Generator().manual_seed(0))
    return mlp


def test_layers_by_hand():
    mlp = MLP(2, (2,), "relu")
    with torch.no_grad():
        mlp.layers[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        mlp.layers[0].bias.copy_(torch.tensor([0.5, -1.0]))
        mlp.layers[1].weight.copy_(torch.tensor([[10.0, 100.0]]))
        mlp.layers[1].bias.fill_(7.0)
    # (1, 1): 3.5 and 1; (-1, 2): 3.5 and -6, which ReLU makes 0
    assert mlp(torch.tensor([[1.0, 1.0], [-1.0, 2.0]])).tolist() == pytest.approx([142, 42])


def test_without_hidden_layers_it_is_linear():
    mlp = MLP(3, (), "relu")
    mlp.initialise(torch.Generator().manual_seed(0))
    x = torch.tensor([[1.0, 2.0, 3.0]])
    torch.testing.assert_close(mlp(2 * x), 2 * mlp(x))


def test_initial_values():
    mlp = small("dice").requires_grad_(False)
    bound = (6 / (3 + 4)) ** 0.5
    assert 0.5 * bound < float(mlp.layers[0].weight.abs().max()) <= bound
    assert not any(float(p.abs().sum()) for p in mlp.parameters() if p.ndim == 1)
    assert torch.equal(mlp.layers[0].weight, small().layers[0].weight)


def test_dropout_leaves_out_a_share_of_units_and_scales_the_others():
    mlp = MLP(1, (1000,), "relu", 0.25)
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.fill_(1.0)
        mlp.layers[1].bias.zero_()
    x = torch.ones(1, 1)  # 1,000 units of 2
    assert mlp.eval()(x).item() == 2000
    kept = mlp.train()(x, torch.Generator().manual_seed(0)).item() * 0.75 / 2
    assert kept == pytest.approx(750, abs=60)
    assert kept == pytest.approx(round(kept), abs=1e-2)
    assert mlp(x, torch.Generator().manual_seed(0)).item() * 0.75 / 2 == kept


def test_weights_are_counted():
    held = {a: sum(value.numel() for value in small(a).state_dict().values()) for a in ("relu", "dice")}
    assert held["dice"] <= n_weights(3, (4, 2)) <= held["dice"] + 3
    assert held["relu"] <= n_weights(3, (4, 2))
