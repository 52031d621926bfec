import copy
import pickle

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from mutorch import Mutator
from mutorch.errors import ChoiceError
from mutorch.mutables import DumpChosen, MutableValue, OneShotMutableModule, OneShotMutableOP

X = torch.linspace(-1, 1, 6).reshape(3, 2)


def build(**kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OneShotMutableOP({"linear": nn.Linear(2, 2), "tanh": nn.Tanh(), "skip": nn.Identity()}, **kwargs)


def test_the_current_choice_computes():
    op = build()
    for choice, expected in {"linear": op._candidates["linear"](X), "tanh": X.tanh(), "skip": X}.items():
        op.current_choice = choice
        assert torch.equal(op(X), expected)
        assert torch.equal(op.forward_choice(X, choice), expected)
        assert torch.equal(op.forward_choice(X, choice=choice), expected)


def test_without_a_choice_the_candidates_add_up():
    op = build()
    assert op.current_choice is None
    assert torch.equal(op(X), op._candidates["linear"](X) + X.tanh() + X)
    assert torch.equal(op.forward_all(X), op(X))
    op.current_choice = "skip"
    op.current_choice = None
    assert torch.equal(op(X), op.forward_all(X))


def test_fixing_removes_the_other_candidates():
    op = build()
    op.fix_chosen("tanh")
    assert list(op._candidates) == op.choices == ["tanh"]
    assert torch.equal(op(X), X.tanh())
    assert torch.equal(op.forward_fixed(X), X.tanh())
    assert list(op.parameters()) == []
    assert op.dump_chosen() == DumpChosen("tanh", {"all_choices": ["tanh"]})


def test_a_block_that_was_only_loaded_can_be_dumped():
    loaded = build()
    loaded.fix_chosen("skip")
    assert loaded.export_chosen() == "skip"


@pytest.mark.parametrize("choice", ["conv", None, 0, ["skip"], ""])
def test_an_unknown_choice_is_refused_where_it_is_used(choice):
    op = build(alias="stem")
    with pytest.raises(
        AssertionError, match="OneShotMutableOP 'stem' has no choice .*allowed: 'linear', 'tanh', 'skip'"
    ):
        op.forward_choice(X, choice)
    if choice is not None:
        with pytest.raises(ValueError, match="OneShotMutableOP 'stem' has no choice"):
            op.current_choice = choice
    assert op.current_choice is None


def test_dumping_needs_a_choice():
    with pytest.raises(AssertionError, match=r"no current choice to dump; choices: \['linear', 'tanh', 'skip'\]"):
        build().dump_chosen()


def test_samples_are_plain_strings_from_the_given_seed():
    op = build()
    samples = [op.sample_choice(seed) for seed in range(40)]
    assert set(samples) == set(op.choices)
    assert samples == [op.sample_choice(seed) for seed in range(40)]
    assert yaml.safe_load(yaml.safe_dump(samples)) == samples
    assert op.sample_choice() in op.choices


def test_sampling_leaves_the_global_generators_alone():
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    build().sample_choice()
    assert before[0] == np.random.get_state()[1].tolist()
    assert torch.equal(before[1], torch.get_rng_state())


def test_a_block_shows_its_choices():
    op = build()
    op.current_choice = "tanh"
    assert repr(op).splitlines()[1] == "  choices=['linear', 'tanh', 'skip'], current_choice='tanh'"


# ---- any inputs and outputs ------------------------------------------------------------------------------------------


class Attend(nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, query, key, *, mask=None):
        weight = (query * key).sum() if mask is None else (query * key * mask).sum()
        return query * weight * self.sign, {"weight": weight}


@pytest.mark.parametrize(("choice", "sign"), [("plus", 1), ("minus", -1)])
def test_arguments_and_outputs_are_those_of_the_candidates(choice, sign):
    op = OneShotMutableOP({"plus": Attend(1), "minus": Attend(-1)})
    op.current_choice = choice
    mask = torch.tensor([1.0, 0.0])
    calls = [op(X, X, mask=mask), op(X, key=X, mask=mask), op(query=X, key=X, mask=mask)]
    calls.append(op.forward_choice(X, choice, X, mask=mask))
    op.fix_chosen(choice)
    calls += [op(X, X, mask=mask), op.forward_fixed(X, X, mask=mask)]
    weight = (X * X * mask).sum()
    for out, extra in calls:
        assert torch.equal(out, X * weight * sign)
        assert torch.equal(extra["weight"], weight)


class Both(nn.Module):
    def forward(self, pair):
        first, second = pair["x"]
        return [second, first]


@pytest.mark.parametrize("candidates", [{"a": Both(), "b": Both()}, {"a": Attend(1), "b": Attend(2)}])
def test_outputs_that_cannot_be_added_ask_for_a_choice(candidates):
    op = OneShotMutableOP(candidates)
    inputs = ({"x": (X, X)},) if isinstance(candidates["a"], Both) else (X, X)
    with pytest.raises(ChoiceError, match="no current choice.*set current_choice to one of .*or make a Mutator"):
        op(*inputs)
    Mutator(nn.Sequential(op))
    assert isinstance(op(*inputs), list | tuple)


def test_candidates_of_different_shapes_ask_for_a_choice():
    op = OneShotMutableOP({"wide": nn.Linear(2, 3), "narrow": nn.Linear(2, 2)})
    with pytest.raises(ChoiceError, match=r"outputs cannot be added \(The size of tensor"):
        op(X)


def test_one_candidate_needs_no_choice():
    assert OneShotMutableOP({"only": Both()})({"x": (1, 2)}) == [2, 1]


# ---- as a module -----------------------------------------------------------------------------------------------------


def test_the_state_has_the_candidates_by_name():
    op = OneShotMutableOP({"conv3": nn.Conv2d(1, 1, 3), "inner": build(), "skip": nn.Identity()})
    assert list(op.state_dict()) == [
        "_candidates.conv3.weight",
        "_candidates.conv3.bias",
        "_candidates.inner._candidates.linear.weight",
        "_candidates.inner._candidates.linear.bias",
    ]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda op: pickle.loads(pickle.dumps(op))])
def test_copies_of_a_block_choose_on_their_own(copied):
    op = build(alias="stem")
    op.current_choice = "tanh"
    other = copied(op)
    other.current_choice = "skip"
    assert (op.current_choice, other.alias) == ("tanh", "stem")
    assert (op._candidates["linear"].weight is other._candidates["linear"].weight) is False
    other.fix_chosen("linear")
    assert op.choices == ["linear", "tanh", "skip"]


def test_only_the_chosen_candidate_gets_gradients():
    op = OneShotMutableOP({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    op.current_choice = "a"
    op(X).sum().backward()
    assert op._candidates["a"].weight.grad is not None
    assert op._candidates["b"].weight.grad is None


def test_blocks_follow_dtype_and_autocast():
    op = build().to(torch.float64)
    op.current_choice = "linear"
    assert op(X.double()).dtype == torch.float64
    op = build()
    op.current_choice = "linear"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert op(X).dtype == torch.bfloat16


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.depth = MutableValue([1, 2], 2)
        self.width = self.depth * 2
        self.op = build()

    def forward(self, x):
        for _ in range(self.depth.current_choice):
            x = self.op(x)
        return x * self.width.current_choice


def test_compiled_models_compute_every_choice_in_one_graph_each():
    net = Net().eval()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    mutator = Mutator(compiled)
    assert mutator.space.names == ("depth", "op")
    with torch.no_grad():
        for architecture in mutator.space.grid():
            mutator.set_choices(architecture)
            assert torch.equal(compiled(X), net(X))
    torch._dynamo.reset()


# ---- own forwards ----------------------------------------------------------------------------------------------------


class Doubled(OneShotMutableOP):
    def forward_choice(self, x, choice, *args, **kwargs):
        return 2 * super().forward_choice(x, choice, *args, **kwargs)


class Negated:
    def forward_choice(self, x, choice):
        return -self._candidates[choice](x)

    def forward_fixed(self, x):
        return 10 * x


class Mixed(Negated, OneShotMutableOP):
    """Takes its computation from a mixin."""


class Own(Doubled):
    def forward(self, x):
        return x + 1


@pytest.mark.parametrize(("kind", "expected"), [(Doubled, 2 * X), (Mixed, -X), (Own, X + 1)])
def test_a_subclass_computes_by_its_own_methods(kind, expected):
    op = kind({"skip": nn.Identity()})
    op.current_choice = "skip"
    assert torch.equal(op(X), expected)


def test_a_fixed_subclass_computes_what_it_says_is_fixed():
    op = Mixed({"skip": nn.Identity()})
    op.fix_chosen("skip")
    assert torch.equal(op(X), 10 * X)


def test_the_base_classes_are_abstract():
    with pytest.raises(TypeError, match="abstract"):
        OneShotMutableModule()
