import pytest
import torch
from torch import nn
from torch.func import functional_call

from mutorch.errors import ConfigError
from mutorch.mutables import DiffMutableOP, Gumbel, OneHot, Relaxation, Softmax, TopK, TwoPaths
from mutorch.mutators import Mutator
from mutorch.training import arch_step, joint_step, policy_step, relaxed_step, unrolled_arch_step

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(16, 3, generator=GENERATOR, dtype=torch.float64)
Y = torch.randn(16, 1, generator=GENERATOR, dtype=torch.float64)


def build(relaxation=None, **kwargs):
    torch.manual_seed(0)

    def block():
        return DiffMutableOP({"linear": nn.Linear(3, 3), "tanh": nn.Sequential(nn.Linear(3, 3), nn.Tanh())})

    net = nn.Sequential(block(), block(), nn.Linear(3, 1)).double()
    mutator = Mutator(net)
    mutator.prepare_arch_params(relaxation=relaxation)
    for parameter in mutator.arch_parameters():
        parameter.data = parameter.data.double() + torch.tensor([0.3, -0.2], dtype=torch.float64)
    return net, mutator


def train_loss(model):
    return (model(X[:8]) - Y[:8]).square().mean()


def val_loss(model):
    return (model(X[8:]) - Y[8:]).square().mean()


def gradients(parameters):
    return [None if p.grad is None else p.grad.clone() for p in parameters]


def test_a_relaxed_step_gives_gradients_to_weights_alone():
    net, mutator = build()
    loss = relaxed_step(net, mutator, train_loss, seed=0, step=0)
    assert not loss.requires_grad
    assert all(p.grad is not None for p in net.parameters())
    assert gradients(mutator.arch_parameters()) == [None, None]
    assert all(p.requires_grad for p in mutator.arch_parameters())


def test_an_arch_step_gives_gradients_to_the_architecture_alone():
    net, mutator = build()
    arch_step(net, mutator, val_loss, seed=0, step=0)
    expected = torch.autograd.grad(val_loss(net), mutator.arch_parameters())
    assert all(map(torch.equal, gradients(mutator.arch_parameters()), expected))
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_a_joint_step_is_both():
    net, mutator = build()
    joint_step(net, mutator, train_loss, seed=0, step=0)
    both = gradients([*net.parameters(), *mutator.arch_parameters()])
    other, other_mutator = build()
    relaxed_step(other, other_mutator, train_loss, seed=0, step=0)
    arch_step(other, other_mutator, train_loss, seed=0, step=0)
    for one, two in zip(both, gradients([*other.parameters(), *other_mutator.arch_parameters()]), strict=True):
        torch.testing.assert_close(one, two)


def test_gradients_of_steps_add_up_until_they_are_zeroed():
    net, mutator = build()
    arch_step(net, mutator, val_loss, seed=0, step=0)
    once = gradients(mutator.arch_parameters())
    arch_step(net, mutator, val_loss, seed=0, step=0)
    for one, two in zip(once, gradients(mutator.arch_parameters()), strict=True):
        torch.testing.assert_close(2 * one, two)


@pytest.mark.parametrize("relaxation", [OneHot(), Gumbel(single_path=True), TwoPaths(), TopK(1)], ids=repr)
def test_weights_off_the_path_keep_no_gradient(relaxation):
    net, mutator = build(relaxation)
    relaxed_step(net, mutator, train_loss, seed=0, step=0)
    trained = sum(all(p.grad is not None for p in c.parameters()) for b in net[:2] for c in b._candidates.values())
    assert trained == 2 * relaxation.num_paths


def test_the_architecture_step_leaves_batch_norm_statistics_alone():
    net = nn.Sequential(DiffMutableOP({"norm": nn.BatchNorm1d(3), "skip": nn.Identity()}))
    mutator = Mutator(net)
    mutator.prepare_arch_params()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    arch_step(net, mutator, lambda m: m(X.float()).square().mean(), seed=0, step=0)
    policy_step(mutator, lambda m: m(X.float()).square().mean(), seed=0, step=0)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


class TestUnrolled:
    lr = 0.1

    def direct(self, net, mutator, momentum=0.0, decay=0.0, buffers=None):
        """The gradient of L_val(w'(a), a) by differentiating twice."""
        names = [name for name, _ in net.named_parameters()]
        weights = dict(net.named_parameters())
        found = torch.autograd.grad(train_loss(net), list(weights.values()), create_graph=True)
        virtual = {}
        for name, gradient in zip(names, found, strict=True):
            buffer = 0 if buffers is None else buffers[name]
            virtual[name] = weights[name] - self.lr * (momentum * buffer + gradient + decay * weights[name])
        loss = val_loss(lambda x: functional_call(net, virtual, (x,)))
        return torch.autograd.grad(loss, mutator.arch_parameters())

    @pytest.mark.parametrize("relaxation", [None, Gumbel(hard=False, tau=2.0)], ids=repr)
    def test_it_is_the_gradient_of_a_direct_double_backward(self, relaxation):
        net, mutator = build(relaxation)
        optimizer = torch.optim.SGD(net.parameters(), lr=self.lr)
        loss = unrolled_arch_step(mutator, train_loss, val_loss, optimizer, seed=0, step=0, epsilon=1e-4)
        assert loss.isfinite()
        for found, expected in zip(gradients(mutator.arch_parameters()), self.direct(net, mutator), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)

    def test_momentum_and_weight_decay_belong_to_the_virtual_step(self):
        net, mutator = build()
        optimizer = torch.optim.SGD(net.parameters(), lr=self.lr, momentum=0.9, weight_decay=0.05)
        relaxed_step(net, mutator, train_loss, seed=0, step=0)
        optimizer.step()
        optimizer.zero_grad()
        buffers = {name: optimizer.state[p]["momentum_buffer"] for name, p in net.named_parameters()}
        unrolled_arch_step(mutator, train_loss, val_loss, optimizer, seed=0, step=1, epsilon=1e-4)
        expected = self.direct(net, mutator, 0.9, 0.05, buffers)
        for found, wanted in zip(gradients(mutator.arch_parameters()), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)

    def test_it_is_the_derivative_of_the_loss_after_a_real_step(self):
        net, mutator = build()
        optimizer = torch.optim.SGD(net.parameters(), lr=self.lr)
        unrolled_arch_step(mutator, train_loss, val_loss, optimizer, seed=0, step=0, epsilon=1e-4)
        found = gradients(mutator.arch_parameters())[0][0]

        def after(change):
            other, other_mutator = build()
            with torch.no_grad():
                other_mutator.arch_parameters()[0][0] += change
            real = torch.optim.SGD(other.parameters(), lr=self.lr)
            relaxed_step(other, other_mutator, train_loss, seed=0, step=0)
            real.step()
            return val_loss(other).item()

        assert found.item() == pytest.approx((after(1e-5) - after(-1e-5)) / 2e-5, rel=1e-5)

    def test_it_differs_from_the_first_order(self):
        net, mutator = build()
        first = torch.autograd.grad(val_loss(net), mutator.arch_parameters())
        optimizer = torch.optim.SGD(net.parameters(), lr=self.lr)
        unrolled_arch_step(mutator, train_loss, val_loss, optimizer, seed=0, step=0)
        assert not torch.allclose(gradients(mutator.arch_parameters())[0], first[0], rtol=1e-3)

    def test_weights_are_as_before(self):
        net, mutator = build()
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = torch.optim.SGD(net.parameters(), lr=self.lr)
        unrolled_arch_step(mutator, train_loss, val_loss, optimizer, seed=0, step=0)
        assert all(map(torch.equal, before, net.parameters()))
        assert all(p.grad is None for p in net.parameters())

    def test_only_sgd_has_a_virtual_step(self):
        net, mutator = build()
        with pytest.raises(ConfigError, match="the virtual step is one of SGD, got Adam"):
            unrolled_arch_step(mutator, train_loss, val_loss, torch.optim.Adam(net.parameters()), seed=0, step=0)


class TestPolicy:
    def test_its_mean_is_the_gradient_of_the_expected_loss(self):
        net, mutator = build()
        expected_loss = torch.zeros((), dtype=torch.float64)
        for architecture in mutator.space.grid():
            with mutator.at(architecture), torch.no_grad():
                loss = val_loss(net)
            expected_loss = expected_loss + loss * mutator.arch.log_probability(architecture).exp()
        expected = torch.autograd.grad(expected_loss, mutator.arch_parameters())
        for step in range(600):
            policy_step(mutator, val_loss, seed=0, step=step)
        for found, wanted in zip(gradients(mutator.arch_parameters()), expected, strict=True):
            torch.testing.assert_close(found / 600, wanted, atol=0.02, rtol=0.15)

    def test_one_sample_has_no_baseline(self):
        _, mutator = build()
        with pytest.raises(ConfigError, match="at least two samples, got num_samples=1"):
            policy_step(mutator, val_loss, seed=0, step=0, num_samples=1)


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


RELAXATIONS: list[Relaxation] = [
    Softmax(),
    Gumbel(),
    Gumbel(hard=False),
    Gumbel(single_path=True),
    OneHot(),
    TwoPaths(),
]


class Column(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        return x[:, self.number]


class Toy(nn.Module):
    """Two blocks, added up; the target is the sum of columns 1 and 4, which are independent of the others."""

    def __init__(self):
        super().__init__()
        self.first = DiffMutableOP({f"c{number}": Column(number) for number in (0, 1, 2)})
        self.second = DiffMutableOP({f"c{number}": Column(number) for number in (3, 4, 5)})

    def forward(self, x):
        return self.first(x) + self.second(x)


COLUMNS = torch.linalg.qr(torch.randn(64, 6, generator=GENERATOR))[0] * 8
BEST = {"first": "c1", "second": "c4"}


def toy(relaxation, seed):
    net = Toy()
    mutator = Mutator(net)
    mutator.prepare_arch_params(seed=seed, relaxation=relaxation)
    return net, mutator, torch.optim.Adam(mutator.arch_parameters(), lr=0.1)


def toy_loss(model):
    return (model(COLUMNS) - COLUMNS[:, 1] - COLUMNS[:, 4]).square().mean()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=repr)
def test_every_relaxation_finds_the_best_operation(relaxation, seed):
    net, mutator, optimizer = toy(relaxation, seed)
    for step in range(150):
        arch_step(net, mutator, toy_loss, seed=seed, step=step)
        optimizer.step()
        optimizer.zero_grad()
    assert mutator.argmax() == BEST


@pytest.mark.parametrize("seed", range(5))
def test_sampled_architectures_find_the_best_operation(seed):
    _, mutator, optimizer = toy(None, seed)
    for step in range(100):
        policy_step(mutator, toy_loss, seed=seed, step=step)
        optimizer.step()
        optimizer.zero_grad()
    assert mutator.argmax() == BEST


def test_a_gate_before_a_normalised_layer_has_no_gradient():
    torch.manual_seed(0)
    block = DiffMutableOP({"halved": Scaled(0.5), "twice": Scaled(2.0)}, relaxation=OneHot())
    net = nn.Sequential(block, nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3, affine=False, eps=1e-12)).double()
    mutator = Mutator(net)
    mutator.prepare_arch_params()
    arch_step(net, mutator, lambda m: (m(X) - X).square().mean(), seed=0, step=0)
    assert mutator.arch_parameters()[0].grad.abs().max() < 1e-8
