"""Steps that train a controller and the weights that its samples share."""

import itertools
import math

import pytest
import torch
from torch import nn

from mutorch.errors import ConfigError
from mutorch.mutables import InputChoice, LayerChoice
from mutorch.mutators import EnasMutator, RandomMutator
from mutorch.mutators.enas_walk import Given
from mutorch.mutators.mask_format import decode
from mutorch.training import Baseline, child_step, controller_step


class Net(nn.Module):
    """Two layers, the second of which may also read the input."""

    def __init__(self):
        super().__init__()
        self.first = LayerChoice({name: nn.Linear(2, 2) for name in "abc"}, key="first")
        self.skip = InputChoice(choose_from=["first", ""], key="skip")
        self.second = LayerChoice({name: nn.Linear(2, 2) for name in "ab"}, key="second")

    def forward(self, x):
        out = self.first(x)
        taken = self.skip([out, x])
        return self.second(out if taken is None else out + taken)


class Forced(EnasMutator):
    """Draws what it is told."""

    def sample_search(self):
        walked = self._walked(Given(self.told))
        self.sample_log_prob, self.sample_entropy = walked.log_prob, walked.entropy
        self.sample_skip_penalty = walked.skip_penalty
        return walked.masks


class Constant(Baseline):
    """Does not learn."""

    def update(self, reward):
        pass


def architectures(mutator):
    space = mutator.space
    return [dict(zip(space.names, choices, strict=True)) for choices in itertools.product(*(d.choices for d in space))]


def reward_of(architecture):
    """Any function of a whole architecture."""
    value = {"a": 0.1, "b": 0.7, "c": 0.3}[architecture["first"]] * (1 + len(architecture["skip"]))
    return value - 0.4 * (architecture["second"] == "b")


@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
def test_the_expected_gradient_is_that_of_the_expected_reward(entropy_weight):
    mutator = Forced(Net(), lstm_size=6, seed=1)
    with torch.no_grad():
        for parameter in mutator.parameters():
            parameter.mul_(8)
    parameters = list(mutator.parameters())
    every = architectures(mutator)
    logs = [mutator.log_prob(architecture) for architecture in every]
    entropy = -sum(log.exp() * log for log in logs)
    objective = sum(log.exp() * reward_of(a) for log, a in zip(logs, every, strict=True)) + entropy_weight * entropy
    expected = torch.autograd.grad(-objective, parameters, allow_unused=True)
    found = [torch.zeros_like(p) for p in parameters]
    for log, architecture in zip(logs, every, strict=True):
        choosers = {choice.key: choice for choice in mutator.choosers}
        mutator.told = {key: decode(choosers[key], choice) for key, choice in architecture.items()}
        mutator.zero_grad()
        controller_step(
            mutator,
            lambda _, a=architecture: reward_of(a),
            Constant(total=0.35, weight=1.0),
            num_samples=1,
            entropy_weight=entropy_weight,
            skip_weight=0.0,
            max_norm=None,
        )
        for total, parameter in zip(found, parameters, strict=True):
            if parameter.grad is not None:
                total += log.exp().item() * parameter.grad
    assert any(one is not None and one.abs().max() > 1e-3 for one in expected)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(torch.zeros_like(other) if one is None else one, other, atol=1e-5)


@pytest.mark.parametrize("n_chosen", [1, None])
def test_a_controller_finds_a_planted_optimum_in_a_few_hundred_steps(n_chosen):
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            names = [f"op{number}" for number in range(4)]
            self.ops = nn.ModuleList(LayerChoice({name: nn.Identity() for name in "abcd"}, key=name) for name in names)
            self.inputs = InputChoice(choose_from=names, n_chosen=n_chosen, key="inputs")

    planted = {"op0": "c", "op1": "a", "op2": "d", "op3": "b", "inputs": "op2" if n_chosen else ["op1", "op2"]}
    mutator = EnasMutator(Long(), lstm_size=16, tanh_constant=2.5)
    before = mutator.log_prob(planted).item()
    optimizer = torch.optim.Adam(mutator.parameters(), lr=0.01)
    baseline = Baseline(decay=0.95)
    for _ in range(150):
        controller_step(
            mutator,
            lambda _: sum(mutator.architecture()[key] == choice for key, choice in planted.items()) / len(planted),
            baseline,
            num_samples=8,
            entropy_weight=0.03,
            skip_weight=0.0,
        )
        optimizer.step()
        optimizer.zero_grad()
    assert mutator.export() == planted
    assert mutator.log_prob(planted).item() > before / 3


def test_the_skip_penalty_draws_the_number_of_inputs_to_its_target():
    mutator = EnasMutator(nn.Sequential(InputChoice(n_candidates=6, key="inputs")), skip_target=0.2)
    optimizer = torch.optim.Adam(mutator.parameters(), lr=0.02)
    for _ in range(60):
        controller_step(mutator, lambda _: 0.0, Baseline(), num_samples=2)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        counts = []
        for _ in range(200):
            mutator.reset()
            counts.append(sum(mutator.status()["inputs"]))
    assert sum(counts) / len(counts) == pytest.approx(6 * 0.2, abs=0.3)


def test_the_baseline_begins_at_the_first_reward_and_forgets():
    baseline = Baseline(decay=0.9)
    assert baseline.value is None
    baseline.update(5.0)
    assert baseline.value == pytest.approx(5.0)
    for _ in range(200):
        baseline.update(1.0)
    assert baseline.value == pytest.approx(1.0)
    again = Baseline(decay=0.9)
    again.load_state_dict(baseline.state_dict())
    assert again == baseline


def test_the_first_reward_alone_moves_nothing():
    mutator = EnasMutator(Net())
    controller_step(mutator, lambda _: 7.0, Baseline(), num_samples=1, entropy_weight=0.0, skip_weight=0.0)
    assert all(p.grad is None or not p.grad.any() for p in mutator.parameters())


def test_a_child_step_trains_what_was_drawn_and_nothing_else():
    net = Net()
    mutator = EnasMutator(net, seed=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(4):
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        child_step(net, mutator, lambda m: m(torch.ones(1, 2)).square().sum())
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        taken = mutator.architecture()
        moved = {name.rpartition(".")[0] for name, p in net.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {f"first.{taken['first']}", f"second.{taken['second']}"}
    assert all(p.grad is None for p in mutator.parameters())


def test_gradients_of_a_child_step_are_clipped_where_that_is_asked_for():
    def norm(max_norm):
        net = Net()
        torch.manual_seed(0)
        for parameter in net.parameters():
            nn.init.normal_(parameter)
        child_step(net, EnasMutator(net), lambda m: 100 * m(torch.ones(1, 2)).sum(), max_norm=max_norm)
        return math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters() if p.grad is not None))

    assert norm(5.0) == pytest.approx(5.0, rel=1e-4)
    assert norm(None) > 50


def test_a_child_step_takes_any_mutator_that_draws():
    net = Net()
    loss = child_step(net, RandomMutator(net), lambda m: m(torch.ones(1, 2)).sum())
    assert not loss.requires_grad


def test_judging_samples_leaves_weights_and_statistics_alone():
    norm = nn.BatchNorm1d(2)
    net = nn.Sequential(LayerChoice({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}), norm)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    controller_step(
        EnasMutator(net), lambda m: m(torch.randn(4, 2, generator=torch.Generator().manual_seed(0))).sum(), Baseline()
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_step_without_samples_is_refused():
    with pytest.raises(ConfigError, match="at least one sample, got num_samples=0"):
        controller_step(EnasMutator(Net()), lambda _: 0.0, Baseline(), num_samples=0)
