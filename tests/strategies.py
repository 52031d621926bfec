"""Random search spaces and random supernets for property tests.

A supernet is drawn as a *recipe*, nested tuples that print well, and built by `build`: the same recipe gives the same
names and weights every time and in every process.
"""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mutorch.errors import SpaceError
from mutorch.mutables import DerivedMutable, MutableModule, MutableValue, OneShotMutableOP
from mutorch.space import Decision, Operation, Ref, SearchSpace, condition, maximum, minimum, switch_case

CHANNELS, SIZE = 4, 5

# ---- spaces ----------------------------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=6)
plain_choices = st.one_of(
    st.text(max_size=3),
    st.integers(-4, 4),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.lists(st.integers(0, 3), max_size=2),
)


@st.composite
def spaces(draw, max_decisions=5, max_choices=3, nested=True):
    """Spaces with every type of choice, in any order, with decisions inside one or several candidates."""
    decided = draw(st.lists(names, min_size=1, max_size=max_decisions, unique=True))
    decisions = []
    for name in decided:
        choices = draw(st.lists(plain_choices, min_size=1, max_size=max_choices, unique_by=_key))
        pairs = [(decision.name, choice) for decision in decisions for choice in decision.choices]
        when = draw(st.lists(st.sampled_from(pairs), max_size=3)) if pairs and nested else []
        default, largest = draw(st.none() | st.sampled_from(choices)), draw(st.none() | st.sampled_from(choices))
        decisions.append(Decision(name, tuple(choices), default=default, largest=largest, when=tuple(when)))
    return SearchSpace(draw(st.permutations(decisions)))


def _numbers(space):
    """Numbers that follow the decisions of a space, nothing that fails at any choice."""
    numeric = [d.name for d in space if all(isinstance(c, int | float) for c in d.choices)]
    leaves = st.integers(-3, 3)
    if numeric:
        leaves |= st.sampled_from(numeric).map(Ref)
    leaves |= st.sampled_from(space.decisions).map(
        lambda d: switch_case(Ref(d.name), {_key(choice): n for n, choice in enumerate(d.choices)})
    )

    def operations(inner):
        pairs = st.tuples(inner, inner)
        return st.one_of(
            pairs.map(lambda ab: ab[0] + ab[1]),
            pairs.map(lambda ab: ab[0] - ab[1]),
            pairs.map(lambda ab: ab[0] * ab[1]),
            pairs.map(lambda ab: maximum(*ab)),
            pairs.map(lambda ab: minimum(*ab)),
            st.tuples(inner, st.sampled_from((2, 3, -2))).map(lambda ab: ab[0] // ab[1]),
            st.tuples(inner, st.sampled_from((2, 3))).map(lambda ab: ab[0] % ab[1]),
            inner.map(abs),
        )

    return st.recursive(leaves, operations, max_leaves=4)


def rules(space):
    """Expressions over the decisions of a space that are true or false."""
    numbers = _numbers(space)
    compare = st.sampled_from(("<", "<=", ">", ">=", "==", "!="))
    compared = st.tuples(compare, numbers, numbers).map(lambda parts: Operation(parts[0], parts[1:]))
    members = st.sampled_from(space.decisions).flatmap(
        lambda d: st.lists(st.sampled_from(d.choices), max_size=2).map(lambda some: Ref(d.name).isin(some))
    )

    def logic(inner):
        pairs = st.tuples(inner, inner)
        return st.one_of(
            pairs.map(lambda ab: ab[0] & ab[1]),
            pairs.map(lambda ab: ab[0] | ab[1]),
            st.tuples(inner, inner, inner).map(lambda abc: condition(*abc)),
            inner.map(lambda a: ~a),
        )

    return st.recursive(compared | members, logic, max_leaves=3)


@st.composite
def constrained_spaces(draw, max_decisions=5, nested=True):
    """Spaces with one to three constraints, which some architecture obeys."""
    space = draw(spaces(max_decisions=max_decisions, nested=nested))
    constraints = draw(st.lists(rules(space), min_size=1, max_size=3))
    try:
        return SearchSpace(space.decisions, constraints)
    except SpaceError:
        return SearchSpace(space.decisions, [~constraints[0] | constraints[0]])


def _key(choice):
    return tuple(choice) if isinstance(choice, list) else choice


# ---- supernets -------------------------------------------------------------------------------------------------------

LEAVES = ("conv", "norm", "relu", "skip", "drop")


def recipes(max_leaves=8):
    """Recipes of supernets, each with at least one block of candidates."""
    aliases = st.sampled_from((None, None, "shared"))
    leaves = st.one_of(
        st.sampled_from(LEAVES).map(lambda kind: (kind,)),
        st.tuples(st.just("kernel"), st.sampled_from((None, "kernel"))),
        st.tuples(
            st.just("scale"), st.sampled_from(("twice", "half", "sum", "loose")), st.sampled_from((None, "scale"))
        ),
        st.tuples(st.just("tied")),
    )

    def blocks(inner):
        return st.one_of(
            st.tuples(st.just("choice"), st.tuples(inner, inner), aliases),
            st.tuples(st.just("same candidate"), inner, inner),
            st.tuples(st.just("chain"), st.lists(inner, min_size=1, max_size=3).map(tuple)),
            st.tuples(st.just("twice"), inner),
            st.tuples(st.just("residual"), inner),
            st.tuples(st.just("depth"), st.tuples(inner, inner), st.sampled_from((None, "depth"))),
            st.tuples(st.just("pair"), inner, inner),
        )

    anything = st.recursive(leaves, blocks, max_leaves=max_leaves)
    return st.tuples(st.just("choice"), st.tuples(anything, anything), st.none()).flatmap(
        lambda choice: st.tuples(st.just("chain"), st.tuples(st.just(choice), anything))
    )


def build(recipe, seed=0):
    """The supernet of a recipe; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(recipe)


def inputs(seed=0, batch=2):
    return torch.randn(batch, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def counterpart(net, path):
    """The supernet's tensor or module that the exported model has at `path`, at the current choices."""
    found = net
    for part in path.split("."):
        while isinstance(found, MutableModule):
            found = found.chosen_module(found.current_choice)
        found = getattr(found, part)
    return found


def _build(recipe):
    kind, *parts = recipe
    return BUILDERS[kind](*parts)


def _choice(candidates, alias):
    # One alias is shared by blocks with the same candidate names, whatever the candidates are.
    return OneShotMutableOP(dict(zip("ab", map(_build, candidates), strict=True)), alias=alias)


def _same_candidate(shared, other):
    module = _build(shared)
    return OneShotMutableOP({"a": module, "again": module, "other": _build(other)})


def _twice(block):
    module = _build(block)
    return nn.Sequential(module, nn.ReLU(), module)


def _with_statistics(norm):
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return norm


class KernelConv(nn.Module):
    """A convolution that uses the middle of its kernel."""

    def __init__(self, alias=None):
        super().__init__()
        self.kernel_size = MutableValue([1, 3, 5], 3, alias=alias)
        self.weight = nn.Parameter(torch.randn(CHANNELS, CHANNELS, 5, 5) / 10)

    def forward(self, x: Tensor) -> Tensor:
        size = self.kernel_size.current_choice
        start = (5 - size) // 2
        return F.conv2d(x, self.weight[:, :, start : start + size, start : start + size], padding=size // 2)


class Scale(nn.Module):
    """Multiplies by a value that follows another."""

    def __init__(self, rule, alias=None):
        super().__init__()
        value = MutableValue([8, 16], alias=alias)
        if rule != "loose":
            self.value = value
        match rule:
            case "twice" | "loose":
                self.factor = value * 2
            case "half":
                self.factor = value // 2
            case "sum":
                self.factor = DerivedMutable.derive_concat_mutable([value, value * 0.5])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor.current_choice / 16


class Tied(nn.Module):
    """Two layers that share a weight, in two candidates and outside."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 1)
        second, third = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        second.weight = third.weight = self.first.weight
        self.op = OneShotMutableOP({"second": second, "third": nn.Sequential(third, nn.Tanh())})

    def forward(self, x: Tensor) -> Tensor:
        return self.op(self.first(x))


class Residual(nn.Module):
    """A skip connection with control flow."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return x + out if out.mean() > 0 else x - out


class Depth(nn.Module):
    """As many of its layers as its value says."""

    def __init__(self, layers, alias=None):
        super().__init__()
        self.layers = layers
        self.depth = MutableValue(list(range(len(layers) + 1)), len(layers), alias=alias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[: self.depth.current_choice]:
            x = layer(x)
        return x


class AsTuple(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, *, scale: float = 1.0):
        return x, {"out": self.block(x) * scale}


class PairBlock(nn.Module):
    """Candidates that take a keyword and give a tuple with a dict."""

    def __init__(self, first, second):
        super().__init__()
        self.op = OneShotMutableOP({"first": AsTuple(first), "second": AsTuple(second)})

    def forward(self, x: Tensor) -> Tensor:
        x, outputs = self.op(x, scale=0.5)
        return x + outputs["out"]


BUILDERS = {
    "conv": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "norm": lambda: _with_statistics(nn.BatchNorm2d(CHANNELS)),
    "relu": nn.ReLU,
    "skip": nn.Identity,
    "drop": lambda: nn.Dropout(0.5),
    "kernel": KernelConv,
    "scale": Scale,
    "tied": Tied,
    "choice": _choice,
    "same candidate": _same_candidate,
    "chain": lambda blocks: nn.Sequential(*map(_build, blocks)),
    "twice": _twice,
    "residual": lambda block: Residual(_build(block)),
    "depth": lambda blocks, alias: Depth(nn.ModuleList(map(_build, blocks)), alias),
    "pair": lambda first, second: PairBlock(_build(first), _build(second)),
}
