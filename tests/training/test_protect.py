import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from mutorch import depth, export, searchable, set_mode_, widths
from mutorch.channels import SlimmableChannelUnit
from mutorch.errors import ConfigError
from mutorch.models import chain_net
from mutorch.mutables import OneShotMutableChannel, OneShotMutableValue
from mutorch.mutators import ChannelMutator, Mutator, active_elements, active_readers
from mutorch.ops import DynamicConv2d
from mutorch.ops.kernel import CenterCrop, LearnedTransform
from mutorch.training import path_step, protect, sandwich_step, single_path_step

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 4

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "SGD with Nesterov momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "SGD with dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, dampening=0.5),
    "SGD foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=True),
    "SGD fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "Adam with AMSGrad": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "Adam foreach": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, foreach=True),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "AdamW with AMSGrad": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, foreach=True, amsgrad=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True, amsgrad=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.1, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, weight_decay=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def plain():
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def supernet():
    net = searchable(plain(), X, rules=[widths(counts=[4, 8, 12, 16])])
    return net, Mutator(net)


def loss_fn(model):
    return functional.cross_entropy(model(X), Y)


def snapshot(net, optimizer):
    """Every element of weights and of what is remembered, by name."""
    values = {}
    for name, parameter in net.named_parameters():
        values[name] = parameter.detach().clone()
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                values[f"{name}/{key}"] = value.clone()
    return values


def masks(net, mutator, architecture):
    """Parameter to the elements that an architecture computes with."""
    with mutator.at(architecture):
        readers = active_readers(net)
        found = {}
        for name, parameter in net.named_parameters():
            mask = active_elements(readers[id(parameter)]) if id(parameter) in readers else torch.zeros(())
            found[name] = (torch.ones(()) if mask is None else mask).bool().expand(parameter.shape)
        return found


def assert_only_moved(before, after, used):
    for name, old in before.items():
        mask = used[name.split("/")[0]]
        if mask.shape == old.shape:
            assert torch.equal(after[name][~mask], old[~mask]), name
        elif not mask.any():
            assert torch.equal(after[name], old), name


def steps(net, mutator, optimizer, architecture, count):
    for _ in range(count):
        path_step(net, mutator, loss_fn, [architecture])
        optimizer.step()
        optimizer.zero_grad()


@every_optimizer
def test_what_is_not_active_stays_bit_for_bit_in_weights_and_in_what_is_remembered(make):
    net, mutator = supernet()
    optimizer = make(net.parameters())
    protect(optimizer, net)
    steps(net, mutator, optimizer, mutator.space.max, 3)
    before = snapshot(net, optimizer)
    steps(net, mutator, optimizer, mutator.space.min, 10)
    after = snapshot(net, optimizer)
    used = masks(net, mutator, mutator.space.min)
    assert_only_moved(before, after, used)
    assert all((after[name] != before[name])[used[name]].any() for name in used)


@every_optimizer
def test_what_is_active_moves_as_in_an_optimizer_of_the_plain_subnet(make):
    net, mutator = supernet()
    architecture = mutator.space.sample(3)
    subnet = export(net, architecture).train()
    optimizer, of_subnet = make(net.parameters()), make(subnet.parameters())
    protect(optimizer, net)
    for _ in range(5):
        path_step(net, mutator, loss_fn, [architecture])
        optimizer.step()
        optimizer.zero_grad()
        loss_fn(subnet).backward()
        of_subnet.step()
        of_subnet.zero_grad()
    used = masks(net, mutator, architecture)
    found, expected = snapshot(net, optimizer), snapshot(subnet, of_subnet)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        mask = used[name.split("/")[0]]
        part = found[name][mask].view(value.shape) if mask.shape == found[name].shape else found[name]
        torch.testing.assert_close(part, value, rtol=1e-6, atol=1e-7, msg=name)


def test_without_protection_inactive_weights_drift():
    net, mutator = supernet()
    optimizer = OPTIMIZERS["SGD with momentum"](net.parameters())
    steps(net, mutator, optimizer, mutator.space.max, 1)
    before = snapshot(net, optimizer)
    steps(net, mutator, optimizer, mutator.space.min, 1)
    with pytest.raises(AssertionError):
        assert_only_moved(before, snapshot(net, optimizer), masks(net, mutator, mutator.space.min))


def test_removing_the_protection_gives_the_optimizer_back():
    moved = []
    for protected in (False, True):
        net, mutator = supernet()
        optimizer = OPTIMIZERS["AdamW"](net.parameters())
        if protected:
            protection = protect(optimizer, net)
            protection.remove()
            protection.remove()
        steps(net, mutator, optimizer, mutator.space.max, 2)
        steps(net, mutator, optimizer, mutator.space.min, 2)
        moved.append(snapshot(net, optimizer))
    assert all(torch.equal(value, moved[1][name]) for name, value in moved[0].items())


def test_a_whole_model_moves_as_without_protection():
    moved = []
    for protected in (False, True):
        net, mutator = supernet()
        optimizer = OPTIMIZERS["AdamW"](net.parameters())
        if protected:
            protect(optimizer, net)
        for step in range(3):
            sandwich_step(net, mutator, loss_fn, seed=0, step=step)
            optimizer.step()
            optimizer.zero_grad()
        moved.append(snapshot(net, optimizer))
    assert all(torch.equal(value, moved[1][name]) for name, value in moved[0].items())


def test_of_several_architectures_everything_moves_that_one_of_them_used():
    net, mutator = supernet()
    first, second = mutator.space.names
    optimizer = OPTIMIZERS["SGD with momentum"](net.parameters())
    protect(optimizer, net)
    steps(net, mutator, optimizer, mutator.space.max, 1)
    before = snapshot(net, optimizer)
    both = [{first: 4, second: 12}, {first: 12, second: 4}]
    path_step(net, mutator, loss_fn, both)
    optimizer.step()
    after = snapshot(net, optimizer)
    used = [masks(net, mutator, architecture) for architecture in both]
    union = {name: used[0][name] | used[1][name] for name in used[0]}
    assert_only_moved(before, after, union)
    corner = "3.weight"  # 12x4 and 4x12 of 16x16: no rectangle
    assert int(union[corner].sum()) == 9 * (2 * 48 - 16)
    assert bool((after[corner] != before[corner])[union[corner]].all())


def test_gradients_may_be_accumulated_before_a_step():
    net, mutator = supernet()
    optimizer = OPTIMIZERS["Adam"](net.parameters())
    protect(optimizer, net)
    steps(net, mutator, optimizer, mutator.space.max, 1)
    before, seen = snapshot(net, optimizer), []
    for step in range(3):
        single_path_step(net, mutator, loss_fn, seed=1, step=step)
        seen.append(masks(net, mutator, mutator.current_choices))
    optimizer.step()
    union = {name: seen[0][name] | seen[1][name] | seen[2][name] for name in seen[0]}
    assert_only_moved(before, snapshot(net, optimizer), union)


def test_what_an_earlier_step_used_is_forgotten_at_the_next():
    net, mutator = supernet()
    optimizer = OPTIMIZERS["SGD with momentum"](net.parameters())
    protect(optimizer, net)
    for set_to_none in (True, False):
        path_step(net, mutator, loss_fn, [mutator.space.max])
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        before = snapshot(net, optimizer)
        mutator.set_min_choices()
        loss_fn(net).backward()  # a loop of one's own
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        assert_only_moved(before, snapshot(net, optimizer), masks(net, mutator, mutator.space.min))


def test_active_channels_with_a_gradient_of_zero_move_by_weight_decay_as_in_a_plain_net():
    net, mutator = supernet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    protect(optimizer, net)
    with mutator.at(mutator.space.min) as model:
        before = snapshot(net, optimizer)["3.weight"]
        (model(X) * 0).sum().backward()
    optimizer.step()
    used = masks(net, mutator, mutator.space.min)["3.weight"]
    torch.testing.assert_close(snapshot(net, optimizer)["3.weight"][used], before[used] * 0.99)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.linear(x).relu()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_blocks_and_candidates_that_are_left_out_stay_too(set_to_none):
    torch.manual_seed(0)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    deep = nn.Sequential(nn.Linear(8, 8), nn.Sequential(Residual(), Residual(), Residual()))
    chain = chain_net(in_channels=1)
    cases = [
        (searchable(deep, x, rules=[depth()]), lambda m: m(x).square().mean()),
        (chain, lambda m: m(torch.ones(2, 1, 8, 8)).square().mean()),
    ]
    for net, loss in cases:
        mutator = Mutator(net)
        optimizer = OPTIMIZERS["Adam"](net.parameters())
        protect(optimizer, net)
        for architecture in (mutator.space.max, mutator.space.min):
            before = snapshot(net, optimizer)
            mutator.set_choices(architecture)
            loss(net).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
            used = masks(net, mutator, architecture)
            assert_only_moved(before, snapshot(net, optimizer), used)
        assert any(not mask.any() for mask in used.values())


@pytest.mark.parametrize("rule", [CenterCrop, LearnedTransform])
def test_borders_of_kernels_and_matrices_of_smaller_kernels_stay(rule):
    torch.manual_seed(0)
    conv = DynamicConv2d(3, 8, 7, padding=3, kernel=rule())
    width, size = OneShotMutableChannel(8, [4, 8]), OneShotMutableValue([3, 5, 7])
    conv.register_mutable_attr("out_channels", width)
    conv.register_mutable_attr("kernel_size", size)
    optimizer = OPTIMIZERS["SGD with momentum"](conv.parameters())
    protect(optimizer, conv)

    def step(channels, kernel):
        width.current_choice, size.current_choice = channels, kernel
        before = snapshot(conv, optimizer)
        conv(X).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        after = snapshot(conv, optimizer)
        return {name: (after[name] != before[name]) for name in dict(conv.named_parameters())}

    step(8, 7)
    step(8, 3)
    moved = step(4, 5)
    middle = torch.zeros(8, 3, 7, 7, dtype=torch.bool)
    middle[:4, :, 1:6, 1:6] = True
    assert torch.equal(moved["weight"], middle)
    if rule is LearnedTransform:
        assert moved["trans_matrix_7to5"].any()
        assert not moved["trans_matrix_5to3"].any()
        moved = step(4, 3)
        assert torch.equal(moved["weight"], middle)  # what goes into the first matrix
        assert moved["trans_matrix_5to3"].any()


def test_the_norms_of_other_widths_stay():
    torch.manual_seed(0)
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), *head)
    unit = {"type": SlimmableChannelUnit, "default_args": {"candidate_choices": [2, 4, 8]}}
    mutator = ChannelMutator(unit, {"type": "ChannelAnalyzer", "demo_input": (1, 3, 6, 6)})
    mutator.prepare_from_supernet(net)
    optimizer = OPTIMIZERS["Adam"](net.parameters())
    protect(optimizer, net)
    (name,) = mutator.space.names
    for width in (8, 4, 2, 4):
        before = snapshot(net, optimizer)
        mutator.set_choices({name: width})
        loss_fn(net).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        after = snapshot(net, optimizer)
        assert_only_moved(before, after, masks(net, mutator, {name: width}))
        moved = {n for n, _ in net[1].named_parameters() if not torch.equal(after[f"1.{n}"], before[f"1.{n}"])}
        assert moved == (
            {"weight", "bias"} if width == 8 else {f"candidate_bn.{width}.{n}" for n in ("weight", "bias")}
        )


def test_weights_that_a_parent_reads_itself_are_protected_as_well():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    net = searchable(nn.Sequential(nn.Linear(8, 16), layer, nn.Linear(16, 8)), x, rules=[widths(divisor=1)])
    mutator = Mutator(net)
    optimizer = OPTIMIZERS["AdamW"](net.parameters())
    protect(optimizer, net)
    for architecture in (mutator.space.max, mutator.space.min):
        before = snapshot(net, optimizer)
        path_step(net, mutator, lambda m: m(x).square().mean(), [architecture])
        optimizer.step()
        optimizer.zero_grad()
    used = masks(net, mutator, mutator.space.min)
    assert_only_moved(before, snapshot(net, optimizer), used)
    assert 0 < int(used["1.self_attn.out_proj.weight"].sum()) < 256


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_works_and_a_step_that_it_leaves_out_moves_nothing(fused):
    net, mutator = supernet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, fused=fused)
    protect(optimizer, net)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

    def step(architecture, factor=1.0):
        before = snapshot(net, optimizer)
        scaled = lambda loss: scaler.scale(loss * factor).backward()  # noqa: E731
        path_step(net, mutator, loss_fn, [architecture], backward=scaled)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return before, snapshot(net, optimizer)

    step(mutator.space.max)
    before, after = step(mutator.space.min)
    assert_only_moved(before, after, masks(net, mutator, mutator.space.min))
    before, after = step(mutator.space.min, factor=float("inf"))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_closure_is_followed():
    net, mutator = supernet()
    optimizer = OPTIMIZERS["Adam"](net.parameters())
    protect(optimizer, net)
    steps(net, mutator, optimizer, mutator.space.max, 1)
    for how in ("by position", "by name"):
        before = snapshot(net, optimizer)

        def closure():
            optimizer.zero_grad()
            return path_step(net, mutator, loss_fn, [mutator.space.min])

        loss = optimizer.step(closure) if how == "by position" else optimizer.step(closure=closure)
        assert loss > 0
        assert_only_moved(before, snapshot(net, optimizer), masks(net, mutator, mutator.space.min))


def test_gradients_written_by_hand_move_what_is_active():
    net, mutator = supernet()
    optimizer = OPTIMIZERS["Adam"](net.parameters())
    protect(optimizer, net)
    steps(net, mutator, optimizer, mutator.space.max, 1)
    before = snapshot(net, optimizer)
    mutator.set_min_choices()
    for parameter, gradient in zip(
        net.parameters(), torch.autograd.grad(loss_fn(net), list(net.parameters())), strict=True
    ):
        parameter.grad = gradient
    optimizer.step()
    used = masks(net, mutator, mutator.space.min)
    assert_only_moved(before, snapshot(net, optimizer), used)
    assert bool((snapshot(net, optimizer)["3.weight"] != before["3.weight"])[used["3.weight"]].all())


def test_frozen_parameters_that_are_thawed_later_are_protected_from_then_on():
    net, mutator = supernet()
    optimizer = OPTIMIZERS["SGD with momentum"](net.parameters())
    net.requires_grad_(False)
    net[8].requires_grad_(True)
    protect(optimizer, net)
    steps(net, mutator, optimizer, mutator.space.max, 1)
    net.requires_grad_(True)
    steps(net, mutator, optimizer, mutator.space.max, 1)
    before = snapshot(net, optimizer)
    steps(net, mutator, optimizer, mutator.space.min, 2)
    assert_only_moved(before, snapshot(net, optimizer), masks(net, mutator, mutator.space.min))


def test_mask_mode_is_protected_alike():
    net, mutator = supernet()
    set_mode_(net, "mask")
    optimizer = OPTIMIZERS["AdamW"](net.parameters())
    protect(optimizer, net)
    steps(net, mutator, optimizer, mutator.space.max, 2)
    before = snapshot(net, optimizer)
    steps(net, mutator, optimizer, mutator.space.min, 2)
    assert_only_moved(before, snapshot(net, optimizer), masks(net, mutator, mutator.space.min))


def test_the_state_of_the_optimizer_keeps_its_form_and_copies_and_exports_know_nothing_of_it():
    net, mutator = supernet()
    optimizer = OPTIMIZERS["AdamW"](net.parameters())
    expected = None
    for protected in (False, True):
        if protected:
            protect(optimizer, net)
        steps(net, mutator, optimizer, mutator.space.min, 1)
        state = optimizer.state_dict()
        keys = {number: set(values) for number, values in state["state"].items()}
        assert expected is None or (keys, state["param_groups"]) == expected
        expected = keys, state["param_groups"]
    again = OPTIMIZERS["AdamW"](copy.deepcopy(net).parameters())
    again.load_state_dict(optimizer.state_dict())
    small = export(net, mutator.space.min)
    assert all(not parameter._post_accumulate_grad_hooks for parameter in small.parameters())


def test_an_optimizer_is_protected_once_and_again_after_that_was_removed():
    net, _ = supernet()
    optimizer = OPTIMIZERS["SGD"](net.parameters())
    protection = protect(optimizer, net)
    with pytest.raises(ConfigError, match="protected already"):
        protect(optimizer, net)
    protection.remove()
    protect(optimizer, net)


def test_one_optimizer_may_have_several_protected_models():
    (one, of_one), (other, of_other) = supernet(), supernet()
    optimizer = OPTIMIZERS["AdamW"]([*one.parameters(), *other.parameters()])
    protect(optimizer, one)
    protect(optimizer, other)
    before = [snapshot(net, optimizer) for net in (one, other)]
    path_step(one, of_one, loss_fn, [of_one.space.min])
    path_step(other, of_other, loss_fn, [of_other.space.max])
    optimizer.step()
    assert_only_moved(before[0], snapshot(one, optimizer), masks(one, of_one, of_one.space.min))
    assert not torch.equal(snapshot(other, optimizer)["3.weight"], before[1]["3.weight"])


def test_a_step_that_fails_loses_nothing(monkeypatch):
    net, mutator = supernet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    protect(optimizer, net)
    before = snapshot(net, optimizer)
    path_step(net, mutator, loss_fn, [mutator.space.min])
    with monkeypatch.context() as broken:
        broken.setattr(sys.modules["torch.optim.sgd"], "sgd", lambda *args, **kwargs: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            optimizer.step()
    optimizer.step()
    assert_only_moved(before, snapshot(net, optimizer), masks(net, mutator, mutator.space.min))


def test_optimizers_that_cannot_be_protected_are_refused():
    net, mutator = supernet()
    with pytest.raises(ConfigError, match="none of the parameters of this Sequential"):
        protect(torch.optim.SGD(plain().parameters(), lr=0.1), net)
    with pytest.raises(ConfigError, match="LBFGS moves all parameters along one direction"):
        protect(torch.optim.LBFGS(net.parameters()), net)
    with pytest.raises(ConfigError, match="takes a torch optimizer, got Sequential"):
        protect(net, net)
    optimizer = torch.optim.Adafactor(net.parameters())
    protect(optimizer, net)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    with pytest.raises(ConfigError, match="Adafactor remembers 'row_var' of shape"):
        steps(net, mutator, optimizer, mutator.space.min, 1)
    used = masks(net, mutator, mutator.space.min)
    assert_only_moved(before, dict(net.named_parameters()), used)
