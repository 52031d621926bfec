"""The invariant for LayerChoice, InputChoice and MutableScope in random networks: one architecture computes the same, trains the
same and costs the same, whoever decides it and in whatever form it is taken home.

A network is drawn as a *recipe*, nested tuples that print well, and built by `build`.
"""

import copy
import itertools
import math
import pickle
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import counterpart
from torch import nn

from mutorch import searchable, widths
from mutorch.cost import CostTable, count
from mutorch.mutables import (
    Gumbel,
    InputChoice,
    LayerChoice,
    MutableScope,
    OneHot,
    Softmax,
    TopK,
    TwoPaths,
)
from mutorch.mutators import (
    FixedArchitecture,
    MaskMutator,
    Mutator,
    RandomMutator,
    apply_fixed_architecture,
    inactive_parameters,
)
from mutorch.mutators.mask_format import decode
from mutorch.subnet import export
from mutorch.testing import check_export
from mutorch.training import arch_step, joint_step, policy_step, relaxed_step, single_path_step

WIDTH = 4
FEW = settings(max_examples=20)

# ---- networks ---------------------------------------------------------------------------------------------------------


class Cell(MutableScope):
    def __init__(self, key, body):
        super().__init__(key)
        self.body = body

    def forward(self, x):
        return self.body(x) * 0.5


class Layer(nn.Module):
    """A LayerChoice whose output is brought into the shape of the input, and whose mask counts."""

    def __init__(self, candidates, reduction, return_mask, key):
        super().__init__()
        self.op = LayerChoice(candidates, reduction, return_mask, key)

    def forward(self, x):
        out = self.op(x)
        mask = None
        if self.op_returns_mask(out):
            out, mask = out
        return weighted(together(out, x), mask)

    @staticmethod
    def op_returns_mask(out):
        return isinstance(out, tuple)


class Node(nn.Module):
    """An InputChoice of what branches compute, fed by a list, a dict, or functions that make the inputs."""

    def __init__(self, branches, names, form, n_chosen, reduction, return_mask, key):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.names, self.form = names, form
        self.choice = InputChoice(len(branches), names, n_chosen, reduction, return_mask, key)

    def forward(self, x):
        if self.form == "functions":
            given = [lambda branch=branch: branch(x) for branch in self.branches]
        else:
            given = [branch(x) for branch in self.branches]
        if self.form == "dict":
            given = {"more": x} | dict(zip(self.names, given, strict=True))
        out = self.choice(given)
        mask = None
        if isinstance(out, tuple):
            out, mask = out
        return weighted(together(out, x), mask)


class Twice(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(x + self.block(x))


def together(out, x):
    """What a reduction gave, in the shape of `x`."""
    if out is None:
        return torch.zeros_like(x)
    if isinstance(out, list):
        return torch.stack(out).mean(0) if out else torch.zeros_like(x)
    return sum(out.split(WIDTH, dim=1)) if out.shape[1] != WIDTH else out


def weighted(out, mask):
    return out if mask is None else out * (1 + (mask.to(out) * torch.arange(1, len(mask) + 1)).sum() / 8)


LEAVES = ("linear", "norm", "tanh", "skip", "drop", "sigmoid")
REDUCTIONS = ("sum", "mean", "concat", "none")


def recipes(reductions=REDUCTIONS, n_chosen=(None, 0, 1, 2), max_leaves=6):
    reduction = st.sampled_from(reductions)
    leaves = st.sampled_from(LEAVES).map(lambda kind: ("leaf", kind))

    def blocks(inner):
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        layer = st.tuples(st.just("layer"), several, st.booleans(), reduction, st.booleans(), st.booleans())
        form = st.sampled_from(("list", "dict", "functions"))
        node = st.tuples(
            st.just("node"), several, form, st.sampled_from(n_chosen), reduction, st.booleans(), st.booleans()
        )
        return st.one_of(
            layer,
            layer,
            node,
            node,
            st.tuples(st.just("scope"), inner),
            st.tuples(st.just("chain"), several),
            st.tuples(st.just("twice"), inner),
            st.tuples(st.just("same"), inner),
        )

    first = st.tuples(
        st.just("layer"),
        st.just((("leaf", "linear"), ("leaf", "tanh"))),
        st.booleans(),
        reduction,
        st.booleans(),
        st.just(False),
    )
    anything = st.recursive(leaves, blocks, max_leaves=max_leaves)
    return st.tuples(st.just("chain"), st.tuples(first, blocks(anything)))


class Builder:
    def __init__(self):
        self.scopes = 0

    def build(self, recipe):
        kind, *parts = recipe
        return getattr(self, f"_{kind}")(*parts)

    def _leaf(self, kind):
        if kind == "norm":
            norm = nn.BatchNorm1d(WIDTH)
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
            return norm
        return {
            "linear": lambda: nn.Linear(WIDTH, WIDTH),
            "tanh": nn.Tanh,
            "sigmoid": nn.Sigmoid,
            "skip": nn.Identity,
            "drop": lambda: nn.Dropout(0.5),
        }[kind]()

    def _chain(self, blocks):
        return nn.Sequential(*map(self.build, blocks))

    def _layer(self, candidates, named, reduction, return_mask, shared):
        built = [self.build(candidate) for candidate in candidates]
        key = f"layer {named} {len(built)}" if shared else None
        return Layer(
            dict(zip(("forward", "b", "a.c"), built, strict=False)) if named else built, reduction, return_mask, key
        )

    def _same(self, block):
        built = self.build(block)
        return Layer([built, nn.Identity(), built], "sum", True, None)

    def _scope(self, block):
        self.scopes += 1
        return Cell(f"cell{self.scopes}", self.build(block))

    def _node(self, branches, form, n_chosen, reduction, return_mask, shared):
        names = None
        if form == "dict":
            built = [self._scope(branch) for branch in branches]
            names = [scope.key for scope in built]
        else:
            built = [self.build(branch) for branch in branches]
        key = f"node {n_chosen} {len(built)}" if shared and names is None else None
        return Node(built, names, form, n_chosen, reduction, return_mask, key)

    def _twice(self, block):
        return Twice(self.build(block))


def build(recipe, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Builder().build(recipe)


def inputs(batch=3):
    return torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(0))


X = inputs()
seeds = st.integers(0, 2**16)


class Given(MaskMutator):
    def __init__(self, model, masks):
        super().__init__(model)
        self.masks = masks

    def sample_search(self):
        return self.masks

    sample_final = sample_search


def masks_of(net, architecture, kind):
    """The masks of an architecture, as tensors of one kind."""
    mutator = Given(net, {})
    found = {chooser.key: kind(decode(chooser, architecture[chooser.key]).bool()) for chooser in mutator.choosers}
    mutator.unbind()
    return found


def gradients(net, x=X):
    """What backward leaves in the input and, by name, in the parameters."""
    net.zero_grad()
    x = x.clone().requires_grad_()
    output = net(x)
    if output.requires_grad:
        output.square().sum().backward()
    return output.detach(), x.grad, {name: p.grad for name, p in net.named_parameters()}


def same(one, other):
    return torch.equal(one, other) if one is not None and other is not None else one is None and other is None


# ---- one architecture ---------------------------------------------------------------------------------------------------


@given(recipes(), seeds)
@FEW
def test_an_exported_network_computes_and_trains_as_the_supernet_does(recipe, seed):
    net = build(recipe).eval()
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(seed))
    exported = export(net)
    output, on_input, _ = gradients(net)
    found, found_on_input, by_name = gradients(exported)
    assert torch.equal(output, found)
    assert same(on_input, found_on_input)
    assert all(same(counterpart(net, name).grad, gradient) for name, gradient in by_name.items())


@given(recipes(), seeds)
@FEW
def test_in_training_mode_with_statistics_of_the_batch_they_are_the_same_too(recipe, seed):
    net = build(recipe).train()
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(seed))
    exported = export(net)
    outputs = []
    for model in (net, exported):
        torch.manual_seed(seed)  # of dropout
        outputs.append(model(X))
    assert torch.equal(*outputs)
    assert all(torch.equal(counterpart(net, name), buffer) for name, buffer in exported.named_buffers())


@given(recipes(), seeds)
@FEW
def test_whoever_decides_an_architecture_it_computes_the_same(recipe, seed):
    net = build(recipe).eval()
    space = Mutator(net).space
    architecture = space.sample(seed)
    expected = export(net, architecture)(X)

    by_file = build(recipe).eval()
    fixed = FixedArchitecture(by_file, architecture)
    fixed.reset()
    assert torch.equal(by_file(X), expected)
    assert space.canonical(Mutator(by_file).current_choices) == space.canonical(architecture)
    assert space.canonical(fixed.export()) == space.canonical(architecture)

    in_place = build(recipe).eval()
    apply_fixed_architecture(in_place, architecture)
    assert torch.equal(in_place(X), expected)

    for kind in (torch.Tensor.bool, torch.Tensor.float, torch.Tensor.tolist, torch.Tensor.numpy):
        by_masks = build(recipe).eval()
        mutator = Given(by_masks, masks_of(by_masks, architecture, kind))
        mutator.reset()
        assert torch.allclose(by_masks(X), expected, rtol=0, atol=0)
        assert torch.equal(export(by_masks)(X), expected)

    choices = Mutator(net)
    choices.fix_choices(architecture)
    assert torch.equal(net(X), expected)
    assert torch.equal(export(net)(X), expected)


@given(recipes(), seeds)
@FEW
def test_weights_carry_over_into_a_network_that_was_fixed_in_place(recipe, seed):
    net = build(recipe).eval()
    architecture = Mutator(net).space.sample(seed)
    other = build(recipe, seed=1).eval()
    mutator = apply_fixed_architecture(other, architecture)
    other.load_state_dict(mutator.carry_over(net.state_dict()))
    assert torch.equal(other(X), export(net, architecture)(X))


@given(recipes(), seeds)
@FEW
def test_a_random_mutator_is_exported_as_it_stands(recipe, seed):
    net = build(recipe).eval()
    mutator = RandomMutator(net, seed=seed)
    mutator.reset()
    assert torch.equal(export(net)(X), net(X))
    final = mutator.export()
    assert torch.equal(export(net, final)(X), export(build(recipe).eval(), final)(X))


@given(recipes(), seeds)
@FEW
def test_exported_networks_are_pickled_and_copied_and_own_their_weights(recipe, seed):
    net = build(recipe).eval()
    exported = export(net, Mutator(net).space.sample(seed))
    expected = exported(X)
    for again in (copy.deepcopy(exported), pickle.loads(pickle.dumps(exported))):
        assert torch.equal(again(X), expected)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(exported(X), expected)


@given(recipes(), seeds)
@FEW
def test_supernets_are_pickled_and_copied_with_their_choices(recipe, seed):
    net = build(recipe).eval()
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(seed))
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(again(X), net(X))
        assert Mutator(again).current_choices == mutator.current_choices
        assert Mutator(again).space == mutator.space


@given(recipes(max_leaves=5), seeds)
@settings(max_examples=15)
def test_a_cost_table_says_what_counting_the_exported_network_says(recipe, seed):
    net = build(recipe).eval()
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X[:1])
    for number in range(3):
        architecture = mutator.space.sample(seed + number)
        costs = count(export(net, architecture), X[:1])
        found = table(architecture)
        assert (found.macs, found.params) == (costs.macs, costs.params)


# ---- training -----------------------------------------------------------------------------------------------------------


@given(recipes(), seeds)
@FEW
def test_a_single_path_step_trains_what_the_path_holds_as_the_exported_network_would(recipe, seed):
    net = build(recipe).eval()  # without the noise of dropout; gradients flow all the same
    mutator = Mutator(net)
    single_path_step(net, mutator, lambda model: model(X).square().sum(), seed=seed, step=0)
    _, _, by_name = gradients(export(net))
    for name, gradient in by_name.items():
        assert same(counterpart(net, name).grad, gradient)
    assert all(parameter.grad is None for parameter in inactive_parameters(net))


RELAXATIONS = [Softmax(), Gumbel(), Gumbel(hard=False), Gumbel(single_path=True), OneHot(), TwoPaths(), TopK(2)]
mixable = recipes(reductions=("sum", "mean"), n_chosen=(None, 1, 2))


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=str)
@given(mixable, seeds)
@settings(max_examples=4)
def test_every_relaxation_trains_weights_and_architecture_and_gives_an_architecture(relaxation, recipe, seed):
    net = build(recipe).eval()
    mutator = Mutator(net)
    mutator.prepare_arch_params(seed=seed)

    def loss(model):
        return model(X).square().sum() + 0 * sum(p.sum() for p in model.parameters())

    for step, take in enumerate((relaxed_step, arch_step, joint_step)):
        found = take(net, mutator, loss, seed=seed, step=step, relaxation=relaxation)
        assert found.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mutator.arch_parameters())
    assert policy_step(mutator, loss, seed=seed, step=3).isfinite()
    best = mutator.argmax(exclude=())
    mutator.space.validate(best)
    mutator.set_choices(best)
    assert torch.equal(export(net)(X), net(X))


@given(recipes(reductions=("sum", "mean"), n_chosen=(None, 1)).filter(lambda recipe: "True" not in str(recipe)), seeds)
@FEW
def test_a_mixture_that_is_sure_of_an_architecture_computes_it(recipe, seed):
    net = build(recipe).eval()
    mutator = Mutator(net)
    architecture = mutator.space.sample(seed)
    expected = export(net, architecture)(X)
    mutator.prepare_arch_params()
    with torch.no_grad():
        for name, parameter in mutator.arch.items():
            parameter.fill_(-200.0)
            parameter[mutator.search_groups[name][0].numbers(architecture[name])] = 200.0
    torch.testing.assert_close(net(X), expected)
    assert mutator.space.canonical(mutator.argmax(exclude=())) == mutator.space.canonical(architecture)


@given(recipes(reductions=("sum", "mean"), n_chosen=(None, 1), max_leaves=3), seeds)
@settings(max_examples=10)
def test_probabilities_of_all_architectures_sum_to_one(recipe, seed):
    net = build(recipe).eval()
    mutator = Mutator(net)
    mutator.prepare_arch_params()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in mutator.arch_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    everything = itertools.islice(itertools.product(*(decision.choices for decision in mutator.space)), 3000)
    listed = [dict(zip(mutator.space.names, choices, strict=True)) for choices in everything]
    if len(listed) < 3000:
        total = sum(mutator.arch.log_probability(architecture).exp().item() for architecture in listed)
        assert total == pytest.approx(1, abs=1e-4)


def test_sampled_architectures_are_as_frequent_as_their_log_probability_says():
    net = nn.Sequential(LayerChoice([nn.ReLU(), nn.Tanh()], key="op"), InputChoice(3, key="any"))
    mutator = Mutator(net)
    mutator.prepare_arch_params()
    with torch.no_grad():
        mutator.arch["op"].copy_(torch.tensor([0.7, -0.3]))
        mutator.arch["any"].copy_(torch.tensor([1.0, -0.5, 0.2]))
    total = 6000
    seen = Counter(str(mutator.sample_probable(seed)) for seed in range(total))
    listed = [{"op": op, "any": taken} for op in (0, 1) for taken in mutator.space["any"].choices]
    for architecture in listed:
        p = mutator.arch.log_probability(architecture).exp().item()
        assert abs(seen[str(architecture)] / total - p) < 4.5 * math.sqrt(p * (1 - p) / total)
    assert set(seen) <= {str(architecture) for architecture in listed}


# ---- programs -----------------------------------------------------------------------------------------------------------


@given(recipes(max_leaves=4), seeds)
@settings(max_examples=5)
def test_compiled_supernets_and_exported_networks_compute_the_same(recipe, seed):
    net = build(recipe).eval()
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(seed))
    torch.compiler.reset()
    for model in (net, export(net)):
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.equal(compiled(X), net(X))


def test_a_compiled_supernet_follows_its_choices():
    recipe = ("chain", (("layer", (("leaf", "linear"), ("leaf", "tanh")), True, "sum", True, False),))
    net = build(recipe).eval()
    mutator = Mutator(net)
    torch.compiler.reset()
    compiled = torch.compile(net, backend="eager")
    for choice in ("forward", "b", "forward"):
        mutator.set_choices({"0.op": choice})
        assert torch.equal(compiled(X), export(net)(X))


@given(recipes(max_leaves=4), seeds)
@settings(max_examples=6)
def test_exported_networks_are_programs(recipe, seed):
    net = build(recipe).eval()
    exported = export(net, Mutator(net).space.sample(seed))
    program = torch.export.export(exported, (X,))
    assert torch.equal(program.module()(X), exported(X))


# ---- with widths --------------------------------------------------------------------------------------------------------


class ConvCell(MutableScope):
    def __init__(self, key, channels):
        super().__init__(key)
        self.op = LayerChoice(
            {
                "conv3": nn.Conv2d(channels, channels, 3, padding=1),
                "conv1": nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)),
                "skip": nn.Identity(),
            }
        )

    def forward(self, x):
        return self.op(x)


class ConvNet(nn.Module):
    def __init__(self, form, n_chosen):
        super().__init__()
        self.form = form
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.cell1, self.cell2 = ConvCell("cell1", 8), ConvCell("cell2", 8)
        self.node = InputChoice(choose_from=["cell1", "cell2", InputChoice.NO_KEY], n_chosen=n_chosen, reduction="mean")
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        if self.form == "functions":
            given = [lambda: self.cell1(x), lambda: self.cell2(x), x]
        elif self.form == "dict":
            given = {"": x, "cell1": self.cell1(x), "cell2": self.cell2(x)}
        else:
            given = [self.cell1(x), self.cell2(x), x]
        return self.head(self.node(given).mean((2, 3)))


@pytest.mark.parametrize(("form", "n_chosen"), [("list", 1), ("dict", 2), ("functions", 2)])
def test_choices_inside_a_model_with_searchable_widths_are_exported_exactly(form, n_chosen):
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = searchable(ConvNet(form, n_chosen), example_inputs=x, rules=[widths("*", ratios=(0.5, 1.0))])
    mutator = Mutator(net)
    assert {"cell1.op", "cell2.op", "node"} <= set(mutator.space.names)
    assert len(mutator.space) > 3
    check_export(net, x, num_architectures=6)
    table = CostTable.from_model(mutator, x[:1])
    for seed in range(4):
        architecture = mutator.space.sample(seed)
        costs = count(export(net, architecture), x[:1])
        assert (table(architecture).macs, table(architecture).params) == (costs.macs, costs.params)
    single_path_step(net, mutator, lambda model: model(x).square().sum(), seed=0, step=0)
    assert net.stem.weight.grad is not None


class Branches(nn.Module):
    """Branches of which some are taken, between layers whose widths are searched."""

    def __init__(self, n_chosen, reduction, functions, return_mask):
        super().__init__()
        self.functions = functions
        self.stem = conv_norm(3, 8, 3)
        self.branches = nn.ModuleList(
            [
                LayerChoice({"wide": conv_norm(8, 8, 3), "narrow": conv_norm(8, 8, 1)}, key="branch"),
                conv_norm(8, 8, 1),
                LayerChoice([conv_norm(8, 8, 3), nn.MaxPool2d(3, 1, 1)]),
            ]
        )
        self.choice = InputChoice(3, None, n_chosen, reduction, return_mask)
        self.after = conv_norm(16 if reduction == "concat" else 8, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        given = [lambda branch=branch: branch(x) for branch in self.branches]
        out = self.choice(given if self.functions else [make() for make in given])
        out = out[0] if isinstance(out, tuple) else out
        if isinstance(out, list):
            out = sum(out) if out else None
        return self.head(self.after(torch.zeros_like(x) if out is None else out).mean((2, 3)))


def conv_norm(in_channels, out_channels, size):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, padding=size // 2), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


@pytest.mark.parametrize(
    ("n_chosen", "reduction", "functions", "return_mask"),
    [
        (1, "sum", False, False),
        (1, "none", True, True),
        (2, "mean", False, True),
        (2, "concat", False, False),
        (2, "concat", True, True),
        (None, "sum", True, False),
        (None, "none", False, True),
        (0, "sum", False, False),
    ],
)
def test_widths_of_branches_follow_whatever_may_be_taken_of_them(n_chosen, reduction, functions, return_mask):
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = Branches(n_chosen, reduction, functions, return_mask)
    net = searchable(model, example_inputs=x, rules=[widths("*", ratios=(0.5, 1.0))])
    check_export(net, x, num_architectures=6)
