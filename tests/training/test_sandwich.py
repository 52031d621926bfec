import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from mutorch import export, searchable, widths
from mutorch.channels import SlimmableChannelUnit
from mutorch.errors import ChoiceError, ConfigError, SpaceError, StateError
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import ChannelMutator, Mutator
from mutorch.space import Decision, Ref, SearchSpace
from mutorch.training import (
    path_step,
    sandwich_step,
    sandwiched,
    single_path,
    slimmable_step,
    soft_cross_entropy,
)

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(8, 3, 6, 6, generator=GENERATOR)
Y = torch.arange(8) % 4


def plain():
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def supernet():
    net = searchable(plain(), X, rules=[widths(counts=[4, 8, 12, 16])])
    return net, Mutator(net)


def loss_fn(model):
    return functional.cross_entropy(model(X), Y)


def gradients(net):
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}


def by_hand(net, mutator, architectures, loss_of_student):
    """The sum of the gradients, as one would write the sandwich without the library's step."""
    wanted, total = None, {}
    for architecture in architectures:
        with mutator.at(architecture) as model:
            model.zero_grad()
            output = model(X)
            loss = functional.cross_entropy(output, Y) if wanted is None else loss_of_student(output, wanted)
            loss.backward()
            wanted = output.detach() if wanted is None else wanted
            for name, gradient in gradients(model).items():
                total[name] = total.get(name, 0) + gradient
    net.zero_grad()
    return total


def assert_close(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], msg=name)


STUDENTS = {
    "soft labels": ({}, lambda output, wanted: functional.cross_entropy(output, wanted.softmax(1))),
    "a function": ({"distill": functional.mse_loss}, functional.mse_loss),
    "no distillation": ({"distill": False}, lambda output, wanted: functional.cross_entropy(output, Y)),
    "both losses": (
        {"loss_weight": 0.5},
        lambda output, wanted: (
            functional.cross_entropy(output, wanted.softmax(1)) + 0.5 * functional.cross_entropy(output, Y)
        ),
    ),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_gradients_are_the_sum_of_the_largests_on_the_loss_and_the_others_on_its_outputs(name):
    options, student = STUDENTS[name]
    net, mutator = supernet()
    expected = by_hand(net, mutator, sandwiched(mutator.space, 0, 3), student)
    sandwich_step(net, mutator, loss_fn, seed=0, step=3, **options)
    assert_close(gradients(net), expected)


def test_the_largest_the_smallest_and_random_architectures_run_in_this_order():
    net, mutator = supernet()
    seen = []
    net.register_forward_pre_hook(lambda *_: seen.append(mutator.current_choices))
    sandwich_step(net, mutator, loss_fn, seed=0, step=5, num_random=3)
    assert seen == sandwiched(mutator.space, 0, 5, 3)
    assert seen[:2] == [mutator.space.max, mutator.space.min]
    assert mutator.current_choices == seen[-1]


def test_the_architectures_are_a_function_of_seed_and_step():
    space = SearchSpace([Decision(name, tuple(range(1, 9))) for name in "abcd"])
    assert sandwiched(space, 0, 4) == sandwiched(space, 0, 4)
    drawn = [architecture for step in range(4) for architecture in sandwiched(space, 0, step)[2:]]
    assert len({tuple(architecture.values()) for architecture in drawn}) == 8
    assert sandwiched(space, 0, 4)[2:] != sandwiched(space, 1, 4)[2:]
    assert sandwiched(space, 0, 4)[2] != single_path(space, 0, 4)


def test_more_random_architectures_leave_the_first_ones_as_they_are():
    space = SearchSpace([Decision(name, tuple(range(1, 9))) for name in "abcd"])
    assert sandwiched(space, 0, 4, 5)[:4] == sandwiched(space, 0, 4, 2)


def test_constraints_are_obeyed_by_every_architecture_of_a_sandwich():
    net, mutator = supernet()
    first, second = mutator.space.names
    mutator.require(Ref(first).eq(Ref(second)))
    for step in range(5):
        for architecture in sandwiched(mutator.space, 0, step):
            assert architecture[first] == architecture[second]
        sandwich_step(net, mutator, loss_fn, seed=0, step=step)


def test_the_teachers_outputs_are_not_trained_by_the_students():
    net, mutator = supernet()
    given = []

    def distill(output, wanted):
        given.append((output.requires_grad, wanted.requires_grad))
        return functional.mse_loss(output, wanted)

    sandwich_step(net, mutator, loss_fn, seed=0, step=0, distill=distill)
    assert given == [(True, False)] * 3


def test_gradients_add_up_over_steps_and_the_result_is_the_mean_of_the_losses():
    net, mutator = supernet()
    losses = []
    for step in range(2):
        losses.append(
            sandwich_step(
                net, mutator, loss_fn, seed=0, step=step, backward=lambda loss: (losses.append(loss), loss.backward())
            )
        )
    both = gradients(net)
    each = []
    for step in range(2):
        net.zero_grad()
        sandwich_step(net, mutator, loss_fn, seed=0, step=step)
        each.append(gradients(net))
    assert_close(both, {name: each[0][name] + each[1][name] for name in each[0]})
    torch.testing.assert_close(losses[4], torch.stack(losses[:4]).mean().detach())


class TwoOutputs(nn.Module):
    """Scores of tokens in a dict, with a loss and integers that no one can learn from."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x):
        scores = self.second(self.first(x).relu())
        return {"loss": scores.mean(), "tokens": scores, "best": scores.argmax(-1), "pooled": scores.mean(1)}


def test_outputs_may_be_nested_and_tokens_are_compared_along_the_last_dimension():
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    net = searchable(TwoOutputs(), x, rules=[widths(counts=[4, 16])])
    mutator = Mutator(net)
    sandwich_step(net, mutator, lambda m: m(x)["loss"], seed=0, step=0, num_random=0)
    found = gradients(net)
    net.zero_grad()
    mutator.set_max_choices()
    teacher = net(x)
    teacher["loss"].backward()
    mutator.set_min_choices()
    student = net(x)
    tokens = functional.cross_entropy(student["tokens"].transpose(1, 2), teacher["tokens"].detach().softmax(-1).mT)
    pooled = functional.cross_entropy(student["pooled"], teacher["pooled"].detach().softmax(-1))
    ((tokens + pooled) / 2).backward()
    assert_close(found, gradients(net))


def test_a_model_that_is_called_twice_is_compared_call_by_call():
    net, mutator = supernet()
    pairs = []

    def distill(output, wanted):
        pairs.append((output.shape[0], wanted.shape[0]))
        return functional.mse_loss(output, wanted)

    def twice(model):
        return model(X).mean() + model(X[:3]).mean()

    sandwich_step(net, mutator, twice, seed=0, step=0, num_random=0, distill=distill)
    assert pairs == [(8, 8), (3, 3)]


def test_choices_of_operations_are_trained_in_a_sandwich_too_and_what_is_not_used_gets_no_gradient():
    torch.manual_seed(0)
    net = nn.Sequential(
        OneShotMutableOP({"small": nn.Linear(4, 4, bias=False), "large": nn.Linear(4, 4), "skip": nn.Identity()})
    )
    mutator = Mutator(net)
    net[0].candidates["small"].weight.grad = torch.zeros(4, 4)
    x = torch.ones(2, 4)
    sandwich_step(net, mutator, lambda m: m(x).square().mean(), seed=0, step=0, num_random=0)
    assert set(gradients(net)) == {"0._candidates.large.weight", "0._candidates.large.bias"}


def test_what_cannot_be_compared_is_refused_with_the_way_out():
    net, mutator = supernet()
    with pytest.raises(ConfigError, match="does not call the model .* give distill=False"):
        sandwich_step(net, mutator, lambda m: m[0].weight.sum(), seed=0, step=0)
    with pytest.raises(ConfigError, match=r"shapes \[\].*cannot be compared"):
        soft_cross_entropy({"loss": torch.zeros(())}, {"loss": torch.zeros(())})
    with pytest.raises(ConfigError, match=r"\[\(2, 3\)\], those to learn from \[\(2, 4\)\]"):
        soft_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ConfigError, match="distill is True, False or a function of two outputs, got 0.5"):
        sandwich_step(net, mutator, loss_fn, seed=0, step=0, distill=0.5)
    with pytest.raises(ConfigError, match="num_random must be an int of at least 0, got -1"):
        sandwich_step(net, mutator, loss_fn, seed=0, step=0, num_random=-1)


def test_a_model_that_is_called_only_sometimes_is_refused():
    net, mutator = supernet()
    calls = iter([1, 2])

    def sometimes(model):
        return torch.stack([loss_fn(model) for _ in range(next(calls))]).sum()

    with pytest.raises(ConfigError, match="called the model to learn from 1 times and this architecture 2 times"):
        sandwich_step(net, mutator, sometimes, seed=0, step=0)


def test_another_models_mutator_is_refused():
    net, _ = supernet()
    with pytest.raises(StateError, match="belongs to another model"):
        sandwich_step(net, supernet()[1], loss_fn, seed=0, step=0)


def test_hooks_are_gone_after_a_step_even_where_the_loss_fails():
    net, mutator = supernet()
    with pytest.raises(ZeroDivisionError):
        sandwich_step(net, mutator, lambda m: m(X) / (1 // 0), seed=0, step=0)
    sandwich_step(net, mutator, loss_fn, seed=0, step=0)
    assert not net._forward_hooks


# ---- slimmable networks ----------------------------------------------------------------------------------------------


def slimmable():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    unit = {"type": SlimmableChannelUnit, "default_args": {"candidate_choices": [2, 4, 8]}}
    mutator = ChannelMutator(unit, {"type": "ChannelAnalyzer", "demo_input": (1, 3, 6, 6)})
    mutator.prepare_from_supernet(model)
    (name,) = mutator.space.names
    return model, mutator, [{name: width} for width in (8, 4, 2)]


def test_a_slimmable_step_adds_up_the_gradients_of_its_architectures():
    net, mutator = supernet()
    architectures = [mutator.space.max, mutator.space.sample(0), mutator.space.min]
    slimmable_step(net, mutator, loss_fn, architectures)
    found = gradients(net)
    net.zero_grad()
    path_step(net, mutator, loss_fn, architectures)
    assert_close(found, gradients(net))


def test_a_slimmable_step_distills_from_the_first_architecture():
    net, mutator = supernet()
    architectures = [mutator.space.max, mutator.space.sample(0), mutator.space.min]
    expected = by_hand(net, mutator, architectures, functional.mse_loss)
    slimmable_step(net, mutator, loss_fn, architectures, distill=functional.mse_loss)
    assert_close(gradients(net), expected)


def test_each_width_trains_the_norm_of_its_own():
    net, mutator, architectures = slimmable()
    norm = net[1]
    slimmable_step(net, mutator, loss_fn, architectures[1:])
    trained = {name for name, parameter in norm.named_parameters() if parameter.grad is not None}
    assert trained == {"candidate_bn.4.weight", "candidate_bn.4.bias", "candidate_bn.2.weight", "candidate_bn.2.bias"}
    counts = {width: int(norm.candidate_bn[width].num_batches_tracked) for width in ("2", "4")}
    assert counts == {"2": 1, "4": 1}
    slimmable_step(net, mutator, loss_fn, architectures)
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("number", range(3))
def test_widths_with_norms_of_their_own_train_as_plain_nets_do(number):
    net, mutator, architectures = slimmable()
    subnet = export(copy.deepcopy(net), architectures[number]).train()
    slimmable_step(net, mutator, loss_fn, [architectures[number]])
    loss_fn(subnet).backward()
    width = next(iter(architectures[number].values()))
    norm = net[1] if width == 8 else net[1].candidate_bn[str(width)]
    assert torch.equal(norm.weight.grad, subnet[1].weight.grad)
    assert torch.equal(norm.running_var, subnet[1].running_var)
    assert torch.equal(dict(net.named_parameters())["0.weight"].grad[:width], subnet[0].weight.grad)


def test_architectures_of_a_slimmable_step_are_checked_before_anything_is_computed():
    net, mutator = supernet()
    with pytest.raises(ConfigError, match="there are none"):
        slimmable_step(net, mutator, loss_fn, [])
    with pytest.raises((ChoiceError, SpaceError), match="no choice 5"):
        slimmable_step(net, mutator, loss_fn, [mutator.space.max, dict.fromkeys(mutator.space.names, 5)])
    assert not gradients(net)
