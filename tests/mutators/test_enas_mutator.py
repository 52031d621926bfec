"""A controller that draws architectures: its probabilities, and what it takes notice of."""

import itertools
import math

import pytest
import torch
from torch import nn

import mutorch
from mutorch.errors import BindError, ChoiceError, MissingDecisionError, StateError
from mutorch.mutables import InputChoice, LayerChoice, MutableScope
from mutorch.mutators import EnasMutator


def ops(key, *names):
    return LayerChoice({name: nn.Linear(2, 2) for name in names}, key=key)


class Net(nn.Module):
    """Two layers, and an input choice over them and what is unnamed."""

    def __init__(self, n_chosen=None):
        super().__init__()
        self.first = ops("first", "a", "b")
        self.second = ops("second", "a", "b", "c")
        self.inputs = InputChoice(choose_from=["first", "second", InputChoice.NO_KEY], n_chosen=n_chosen, key="inputs")

    def forward(self, x):
        first = self.first(x)
        taken = self.inputs([first, self.second(first), x])
        return x if taken is None else taken


class Nested(nn.Module):
    """A choice inside a candidate."""

    def __init__(self):
        super().__init__()
        self.outer = LayerChoice({"plain": nn.Linear(2, 2), "choice": ops("inner", "a", "b", "c")}, key="outer")
        self.last = ops("last", "a", "b")

    def forward(self, x):
        return self.last(self.outer(x))


class Cell(MutableScope):
    def __init__(self, key):
        super().__init__(key)
        self.op = ops(f"{key}_op", "a", "b")

    def forward(self, x):
        return self.op(x)


class Cells(nn.Module):
    """The shape of the network of seed 004: cells, whose outputs are chosen from."""

    def __init__(self):
        super().__init__()
        self.cell1, self.cell2 = Cell("cell1"), Cell("cell2")
        self.again = Cell("cell1")
        self.inputs = InputChoice(choose_from=["cell1", "cell2"], n_chosen=1, key="inputs")

    def forward(self, x):
        return self.inputs([self.again(self.cell1(x)), self.cell2(x)])


def architectures(mutator):
    space = mutator.space
    found = {}
    for choices in itertools.product(*(decision.choices for decision in space)):
        architecture = space.canonical(dict(zip(space.names, choices, strict=True)))
        found[str(architecture)] = architecture
    return list(found.values())


def log_of(mutator, architecture):
    return mutator.log_prob(architecture).item()


def sharpened(model, **options):
    """A controller that prefers some architectures clearly."""
    mutator = EnasMutator(model, lstm_size=8, **options)
    with torch.no_grad():
        for parameter in mutator.parameters():
            parameter.mul_(12)
    return mutator


MODELS = {"any": Net, "one": lambda: Net(1), "nested": Nested, "cells": Cells}


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
@pytest.mark.parametrize("layers", [1, 2])
def test_the_probabilities_of_all_architectures_sum_to_one(model, layers):
    mutator = sharpened(model(), lstm_num_layers=layers)
    every = architectures(mutator)
    total = sum(math.exp(log_of(mutator, architecture)) for architecture in every)
    assert len(every) == mutator.space.size
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_samples_come_as_often_as_their_probability_says(model):
    mutator = sharpened(model(), tanh_constant=2.5)
    every = {str(a): math.exp(log_of(mutator, a)) for a in architectures(mutator)}
    counts = dict.fromkeys(every, 0)
    draws = 1500
    with torch.no_grad():
        for _ in range(draws):
            mutator.reset()
            counts[str(mutator.space.canonical(mutator.architecture()))] += 1
    assert max(every.values()) > 2 * min(every.values())
    for name, probability in every.items():
        deviation = math.sqrt(probability * (1 - probability) / draws)
        assert abs(counts[name] / draws - probability) < 4.5 * deviation + 1e-3, name


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_the_log_probability_of_a_sample_is_that_of_its_architecture(model):
    mutator = sharpened(model())
    for _ in range(5):
        mutator.reset()
        assert mutator.sample_log_prob.item() <= 0
        assert torch.equal(mutator.sample_log_prob, mutator.log_prob(mutator.architecture()))


def test_the_entropy_of_samples_is_on_average_that_of_their_distribution():
    mutator = sharpened(Net(1))
    with torch.no_grad():
        logs = [mutator.log_prob(architecture) for architecture in architectures(mutator)]
        entropies = []
        for _ in range(800):
            mutator.reset()
            entropies.append(float(mutator.sample_entropy))
    expected = -sum(float(log.exp() * log) for log in logs)
    assert sum(entropies) / len(entropies) == pytest.approx(expected, rel=0.02)


def test_the_skip_penalty_is_the_divergence_from_the_target():
    mutator = sharpened(Net(), skip_target=0.3)
    with torch.no_grad():
        mutator.reset()
        # Of one input alone: the probability of it is the ratio of two architectures' probabilities.
        base = {**mutator.architecture(), "inputs": []}
        none = log_of(mutator, base)
        expected = 0.0
        for label in (0, 1, 2):
            name = ["first", "second", ""][label]
            odds = math.exp(log_of(mutator, {**base, "inputs": name}) - none)
            p = odds / (1 + odds)
            expected += p * math.log(p / 0.3) + (1 - p) * math.log((1 - p) / 0.7)
        assert float(mutator.sample_skip_penalty) == pytest.approx(expected, rel=1e-4)
        at_target = EnasMutator(Net(), skip_target=0.5)
        at_target.controller.score.weight.zero_()
        at_target.reset()
        assert float(at_target.sample_skip_penalty) == pytest.approx(0, abs=1e-6)


def test_every_parameter_gets_a_gradient_also_the_first_input():
    mutator = EnasMutator(Net())
    total = sum((mutator.log_prob(architecture) for architecture in architectures(mutator)), start=torch.zeros(()))
    total.backward()
    unused = [name for name, p in mutator.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_samples_depend_on_the_seed_and_not_on_torchs_generator():
    def drawn(seed, noise):
        torch.manual_seed(noise)
        mutator = EnasMutator(Net(), seed=seed)
        state = torch.get_rng_state()
        mutator.reset()
        assert torch.equal(torch.get_rng_state(), state)
        return [mutator.architecture(), *(mutator.reset() or mutator.architecture() for _ in range(8))]

    assert drawn(3, 0) == drawn(3, 1)
    assert drawn(3, 0) != drawn(4, 0)


def test_making_a_controller_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    model = Net()
    state = torch.get_rng_state()
    EnasMutator(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_state_dict_has_all_that_the_next_sample_depends_on():
    first, second = EnasMutator(Net(), seed=1), EnasMutator(Net(), seed=2)
    first.reset()
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        first.reset()
        second.reset()
        assert first.architecture() == second.architecture()


def test_the_likeliest_architecture_is_the_same_each_time_and_exports():
    mutator = sharpened(Cells())
    found = mutator.export()
    assert all(mutator.export() == found for _ in range(3))
    with torch.no_grad():
        best = max(architectures(mutator), key=lambda a: log_of(mutator, a))
    assert mutator.space.canonical(found) in architectures(mutator)
    assert log_of(mutator, found) > log_of(mutator, best) - 1
    x = torch.ones(1, 2)
    plain = mutorch.export(mutator.model, found)
    supernet = mutorch.Mutator(mutator.model)
    with supernet.at(found):
        assert torch.equal(plain(x), mutator.model(x))


def test_a_final_sample_is_drawn_anew_where_that_was_asked_for():
    mutator = EnasMutator(Net(), final="sample")
    found = [mutator.export() for _ in range(12)]
    assert any(one != found[0] for one in found)
    for architecture in found:
        mutator.space.validate(architecture)
        mutorch.export(mutator.model, architecture)


def test_the_model_computes_what_was_drawn():
    mutator = EnasMutator(Net(1))
    mutator.reset()
    x = torch.ones(1, 2)
    found = mutator.model(x)
    assert torch.equal(found, mutorch.export(mutator.model, mutator.architecture())(x))


def test_what_stands_in_a_candidate_that_was_not_taken_is_not_asked_about():
    mutator = EnasMutator(Nested())
    here = {"outer": "plain", "last": "b"}
    assert torch.equal(mutator.log_prob({**here, "inner": "a"}), mutator.log_prob({**here, "inner": "c"}))
    there = {"outer": "choice", "last": "b"}
    assert not torch.equal(mutator.log_prob({**there, "inner": "a"}), mutator.log_prob({**there, "inner": "c"}))


def test_choices_of_one_key_are_decided_once():
    mutator = EnasMutator(Cells())
    assert mutator.space.names == ("cell1_op", "cell2_op", "inputs")
    mutator.reset()
    assert list(mutator.status()) == ["cell1_op", "cell2_op", "inputs"]
    assert log_of(mutator, {"cell1_op": "a", "cell2_op": "a", "inputs": "cell1"}) == pytest.approx(
        3 * math.log(0.5), abs=0.1
    )


def test_candidates_with_other_names_have_a_head_of_their_own():
    controller = EnasMutator(nn.Sequential(ops("x", "a", "b"), ops("y", "a", "b"), ops("z", "c", "d"))).controller
    assert [head.out_features for head in controller.heads] == [2, 2]


def test_unnamed_inputs_can_be_told_apart():
    choice = nn.Sequential(InputChoice(n_candidates=3, n_chosen=1, key="inputs"))
    mutator = sharpened(choice)
    with torch.no_grad():
        logs = [log_of(mutator, {"inputs": number}) for number in range(3)]
    assert len(set(logs)) == 3


def test_an_extra_step_when_a_cell_is_left_changes_what_follows():
    one, other = EnasMutator(Cells()), EnasMutator(Cells(), cell_exit_extra_step=True)
    architecture = {"cell1_op": "a", "cell2_op": "a", "inputs": "cell1"}
    assert not torch.equal(one.log_prob(architecture), other.log_prob(architecture))


def test_convolutions_of_reduction_cells_are_preferred_by_the_bias():
    def net(key):
        return nn.Sequential(LayerChoice({"pool": nn.MaxPool2d(1), "conv": nn.Conv2d(1, 1, 1)}, key=key))

    def probability(key):
        return math.exp(log_of(EnasMutator(net(key), branch_bias=1.0), {key: "conv"}))

    assert probability("normal") == pytest.approx(0.5, abs=0.05)
    assert probability("reduce") == pytest.approx(1 / (1 + math.exp(-2)), abs=0.05)


def test_the_mean_of_entropies_is_of_inputs_that_are_drawn_by_themselves():
    def entropy(reduction):
        mutator = EnasMutator(nn.Sequential(InputChoice(n_candidates=4, key="inputs")), entropy_reduction=reduction)
        mutator.reset()
        return mutator.sample_entropy.item()

    assert entropy("sum") == pytest.approx(4 * entropy("mean"))


def test_temperature_and_bound_make_logits_smaller():
    def spread(**options):
        mutator = sharpened(nn.Sequential(ops("op", "a", "b", "c")), **options)
        logs = [log_of(mutator, {"op": name}) for name in "abc"]
        return max(logs) - min(logs)

    assert spread(tanh_constant=None) > spread(tanh_constant=0.1) > 0
    assert spread(tanh_constant=None) > spread(tanh_constant=None, temperature=5.0) > 0


def test_what_is_fixed_stays_and_costs_no_probability():
    net = Net(1)
    mutator = EnasMutator(net)
    net.second.fix_chosen("b")
    net.inputs.fix_chosen("first")
    mutator.reset()
    assert mutator.architecture()["inputs"] == "first"
    assert mutator.sample_log_prob.item() == pytest.approx(math.log(0.5), abs=0.05)
    assert mutator.export()["second"] == "b"


def test_a_count_that_cannot_be_drawn_is_refused_and_nothing_is_bound():
    net = nn.Sequential(InputChoice(n_candidates=3, n_chosen=2, key="inputs"))
    with pytest.raises(AssertionError, match="takes n_chosen=2 inputs, expected 1 or None"):
        EnasMutator(net)
    assert net[0].mutator is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entropy_reduction": "max"}, "no entropy_reduction 'max'"),
        ({"final": "best"}, "no final 'best'"),
        ({"skip_target": 1.0}, "between 0 and 1, got 1.0"),
    ],
)
def test_options_that_there_are_not_are_refused_and_nothing_is_bound(options, message):
    net = Net()
    with pytest.raises(AssertionError, match=message):
        EnasMutator(net, **options)
    EnasMutator(net)


def test_an_architecture_that_does_not_fit_has_no_probability():
    mutator = EnasMutator(Net())
    with pytest.raises(MissingDecisionError, match="leaves out 'second'"):
        mutator.log_prob({"first": "a"})
    with pytest.raises(ChoiceError, match="no candidate 'x'"):
        mutator.log_prob({"first": "a", "second": "x", "inputs": []})


def test_a_second_controller_of_a_model_is_refused():
    net = Net()
    EnasMutator(net)
    with pytest.raises((BindError, StateError), match="is decided by a EnasMutator already"):
        EnasMutator(net)
