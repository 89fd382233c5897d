import torch
from torch import nn

from macrorec.ops.average import average, of_buffers
from macrorec.ops.mlp import MLP


def test_buffers_keep_their_values_and_names():
    network, mean = (MLP(3, (2,), "relu") for _ in range(2))
    network.initialise(torch.Generator().manual_seed(0))
    mean = of_buffers(mean)
    mean.load_state_dict(network.state_dict())
    assert not [*mean.parameters()]
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mean(x), network(x))
    assert not mean(x).requires_grad


def test_the_mean_is_of_all_steps_and_then_of_the_last():
    trained, mean = nn.Linear(1, 1, bias=False), of_buffers(nn.Linear(1, 1, bias=False))
    got = []
    for step, value in enumerate((3.0, 5.0, 1.0, 7.0), 1):
        with torch.no_grad():
            trained.weight.fill_(value)
        average(mean, trained, step, 3)
        got.append(mean.weight.item())
    assert torch.allclose(torch.tensor(got), torch.tensor([3, 4, 3, 3 + (7 - 3) / 3]))
