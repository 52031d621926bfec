"""Whatever a network is composed of: a searchable one computes what its exported subnets compute.

`pytest tests/channels/test_random_networks.py --hypothesis-profile=thorough` draws a thousand new networks.
"""

import copy
import pickle

import torch
from hypothesis import HealthCheck, assume, event, given, settings
from random_networks import build, inputs, networks

from mutorch import Mutator, export, searchable, set_mode_
from mutorch.channels import EmptySpaceError, ModeError, widths
from mutorch.ops.dynamic import cut, dynamic_modules, masked
from mutorch.space import random_at
from mutorch.utils import tensors_in

DRAWS = max(100, settings.default.max_examples)
RULES = [widths(ratios=(0.3, 0.5, 0.8), divisor=1)]


def made(case):
    """A network that torch itself can train (an operation in place may spoil what another needs), and its input."""
    start, recipe = case
    model, x = build(recipe), inputs(start)
    try:
        gradients(copy.deepcopy(model), x)
    except RuntimeError:
        assume(False)
    return model, x


def made_searchable(model, x):
    try:
        return searchable(model, x, rules=RULES)
    except EmptySpaceError:
        event("nothing to search")
        assume(False)


def outputs(model, x):
    return list(tensors_in(model(x)))


def evaluated(model, x):
    """As users evaluate: torch may take other kernels without gradients."""
    with torch.no_grad():
        return outputs(model.eval(), x)


def gradients(model, x):
    """The gradients of a weighted sum of all outputs, in training mode."""
    model.train()
    model.zero_grad()
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for out in outputs(model, x):
        total = total + (out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum()
    total.backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one, other, what=""):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=lambda text: f"{what}: {text}")


def assert_same_tensors(one, other, what=""):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        if tensor is None or other[name] is None:
            nothing = [t for t in (tensor, other[name]) if t is not None and t.abs().max() > 0]
            assert not nothing, f"{what} {name}: a gradient on one side only"
        else:
            torch.testing.assert_close(
                tensor, other[name], rtol=1e-5, atol=1e-7, msg=lambda text, n=name: f"{what} {n}: {text}"
            )


def dims_by_name(net):
    """For each parameter and buffer, by the first name that it has, what is active along its dimensions."""
    found = {}
    names = {id(t): name for name, t in [*net.named_parameters(), *net.named_buffers()]}
    for _, module, dynamic in dynamic_modules(net):
        for name, dims in dynamic.tensors.items():
            for held in (module._parameters, module._buffers):
                if held.get(name) is not None:
                    found[names[id(held[name])]] = dims
    return found


def active_parts(net, tensors):
    """The active parts of the tensors of the whole net; everything else in them must be zero."""
    dims = dims_by_name(net)
    parts = {}
    for name, tensor in tensors.items():
        if tensor is None or name not in dims:
            parts[name] = tensor
            continue
        parts[name] = cut(tensor, dims[name])
        torch.testing.assert_close(tensor, masked(tensor, dims[name]), msg=f"{name}: a gradient of what is not active")
    return parts


def architectures(net, count):
    space = Mutator(net).space
    return [space.min, *(space.sample(random_at(0, "network", number)) for number in range(count))]


many = settings(
    max_examples=DRAWS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@many
@given(networks())
def test_a_subnet_computes_and_learns_what_its_export_does(case):
    model, x = made(case)
    net = made_searchable(model, x)
    mutator = Mutator(net)
    assert net.state_dict().keys() == model.state_dict().keys()
    assert_same(evaluated(model, x), evaluated(net, x), "the whole")
    for architecture in architectures(net, 2):
        mutator.set_choices(architecture)
        plain = export(net, architecture)
        assert_same(evaluated(plain, x), evaluated(net, x), "evaluation")
        trained = copy.deepcopy(net)
        expected, found = gradients(plain, x), gradients(trained, x)
        assert_same_tensors(expected, active_parts(trained, found), "gradient of")
        assert_same_tensors(state(plain), state(export(trained, architecture)), "after training:")
        try:
            set_mode_(net, "mask")
        except ModeError:
            event("no mode mask")
            continue
        zeroed = copy.deepcopy(net)
        plain = export(net, architecture)
        assert_same(evaluated(plain, x), evaluated(net, x), "evaluation, masked")
        assert_same_tensors(found, gradients(zeroed, x), "masked gradient of")
        assert_same_tensors(state(trained), state(zeroed), "after masked training:")
        set_mode_(net, "slice")


@settings(many, max_examples=DRAWS // 4)
@given(networks())
def test_making_a_network_searchable_leaves_it_and_the_random_generator_alone(case):
    model, x = made(case)
    next(model.modules()).train()
    before, modes, random = state(model), [m.training for m in model.modules()], torch.get_rng_state()
    attributes = [{k: v for k, v in vars(m).items() if isinstance(v, int | tuple | str)} for m in model.modules()]
    classes = [type(m) for m in model.modules()]
    made_searchable(model, x)
    assert_same_tensors(before, state(model))
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    after = [{k: v for k, v in vars(m).items() if isinstance(v, int | tuple | str)} for m in model.modules()]
    assert attributes == after
    assert [[type(v) for v in one.values()] for one in attributes] == [[type(v) for v in one.values()] for one in after]
    assert classes == [type(m) for m in model.modules()]


@settings(many, max_examples=DRAWS // 4)
@given(networks())
def test_a_copy_and_a_pickle_of_a_searchable_network_have_choices_of_their_own(case):
    model, x = made(case)
    net = made_searchable(model, x)
    smallest, largest = Mutator(net).space.min, Mutator(net).space.max
    Mutator(net).set_choices(smallest)
    expected = evaluated(net, x)
    copied, pickled = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    Mutator(net).set_choices(largest)
    assert_same(expected, evaluated(copied, x), "copy")
    assert_same(expected, evaluated(pickled, x), "pickle")
    Mutator(copied).set_choices(largest)
    Mutator(pickled).set_choices(largest)
    Mutator(net).set_choices(smallest)
    assert_same(evaluated(model, x), evaluated(copied, x), "copy")
    assert_same(evaluated(model, x), evaluated(pickled, x), "pickle")


@settings(many, max_examples=DRAWS // 4)
@given(networks())
def test_an_export_is_plain_and_of_the_classes_of_the_model(case):
    model, x = made(case)
    net = made_searchable(model, x)
    plain = export(net, Mutator(net).space.min)
    assert [type(m) for m in plain.modules()] == [type(m) for m in model.modules()]
    assert_same(evaluated(plain, x), evaluated(pickle.loads(pickle.dumps(plain)), x), "pickle")
    assert_same(evaluated(export(net, Mutator(net).space.max), x), evaluated(model, x), "the whole")
    assert all(p.is_contiguous() for p in plain.parameters())
