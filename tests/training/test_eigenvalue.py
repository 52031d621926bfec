import pytest
import torch
from torch import nn

from mutorch.errors import ConfigError
from mutorch.models import chain_net
from mutorch.mutables import DiffMutableOP, Gumbel, Softmax
from mutorch.mutators import Mutator
from mutorch.training import SharpnessGuard, dominant_eigenvalue

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(8, 1, 6, 6, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(10, (8,), generator=GENERATOR)


def build():
    torch.manual_seed(0)
    net = chain_net(mutable=DiffMutableOP).double()
    mutator = Mutator(net)
    mutator.prepare_arch_params()
    for parameter in mutator.arch_parameters():
        parameter.data = torch.randn(4, generator=GENERATOR, dtype=torch.float64)
    return net, mutator


def loss(model):
    return nn.functional.cross_entropy(model(X), Y)


def dense(mutator, net):
    parameters = mutator.arch_parameters()
    gradients = torch.cat(torch.autograd.grad(loss(net), parameters, create_graph=True))
    rows = [torch.cat(torch.autograd.grad(g, parameters, retain_graph=True)) for g in gradients]
    values = torch.linalg.eigvalsh(torch.stack(rows))
    return float(values[values.abs().argmax()])


@pytest.mark.parametrize("relaxation", [Softmax(), Gumbel(hard=False)])
def test_power_iteration_finds_the_eigenvalue_of_the_dense_hessian(relaxation):
    net, mutator = build()
    found = dominant_eigenvalue(mutator, loss, seed=0, step=3, relaxation=relaxation, iterations=2000, tolerance=1e-12)
    assert found == pytest.approx(dense(mutator, net), rel=1e-4)


def test_gradients_and_statistics_stay_as_they_are():
    net, mutator = build()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    dominant_eigenvalue(mutator, loss, seed=0, step=0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in [*net.parameters(), *mutator.arch_parameters()])
    assert all(p.requires_grad for p in net.parameters())


def test_a_loss_that_is_linear_in_the_architecture_has_none():
    _, mutator = build()
    assert dominant_eigenvalue(mutator, lambda _: mutator.arch_parameters()[0].sum(), seed=0, step=0) == 0.0


def test_the_guard_compares_the_means_of_two_windows():
    guard = SharpnessGuard(window=2)
    assert not any(guard.should_stop(value) for value in (1.0, 1.0, 1.2, 1.2))
    assert guard.should_stop(-2.0)


def test_a_falling_eigenvalue_does_not_stop():
    guard = SharpnessGuard(window=1)
    assert not any(guard.should_stop(value) for value in (4.0, 3.0, 2.0, 1.0))


def test_impossible_guards_are_refused():
    with pytest.raises(ConfigError, match="ratio must be above 0 and at most 1, got 0"):
        SharpnessGuard(ratio=0)
    with pytest.raises(ConfigError, match="window must be at least 1, got 0"):
        SharpnessGuard(window=0)
