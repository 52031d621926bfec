"""Parts of tensors that are copies along one dimension and views along the other."""

import torch
from torch import nn

from mutorch.channels import searchable, widths
from mutorch.mutators import Mutator


def narrowed():
    """Three layers of which the middle one keeps ordered channels, and the first of those that it reads."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    net = searchable(model, torch.zeros(1, 2), rules=[widths(counts=range(1, 5), divisor=1)])
    units = Mutator(net).search_groups
    units["1"][0].mutable_channel.set_order([3, 1, 0, 2])
    Mutator(net).set_choices({"0": 2, "1": 2})
    return net


def test_training_goes_on_after_a_backward():
    net, x = narrowed(), torch.ones(1, 2)
    for _ in range(2):
        net(x).sum().backward()
    assert net[1]._parameters["weight"].grad[[3, 1], :2].ne(0).all()


def test_a_weight_that_changed_is_read_anew():
    net, x = narrowed(), torch.ones(1, 2)
    with torch.no_grad():
        before = net(x)
        net[1]._parameters["weight"].add_(1.0)
        after = net(x)
        assert torch.equal(after, net[2](net[1](net[0](x))))
        weight = net[1]._parameters["weight"][[1, 3]][:, :2]
        hidden = nn.functional.linear(net[0](x), weight, net[1]._parameters["bias"][[1, 3]])
        assert torch.allclose(after, net[2](hidden))
    assert not torch.equal(before, after)
