"""Every error of the specification of the older one-shot API, in one table: its builtin type and what its message says."""

import copy

import pytest
import torch
from torch import nn

from mutorch.errors import MutorchError
from mutorch.mutables import InputChoice, LayerChoice, MutableScope
from mutorch.mutators import BaseMutator, FixedArchitecture, MaskMutator, RandomMutator, apply_fixed_architecture

X = torch.ones(1, 2)


class Cell(MutableScope):
    def forward(self, x):
        return x


def layer(key="op"):
    return LayerChoice({"conv": nn.Linear(2, 2), "skip": nn.Identity()}, key=key)


def inputs(key="in", **kwargs):
    return InputChoice(choose_from=["a", "b"], key=key, **kwargs)


def masked(mutable, mask, final=None):
    """A mutable that a mask decides."""

    class Masks(MaskMutator):
        def sample_search(self):
            return mask

        def sample_final(self):
            return final

    mutator = Masks(nn.Sequential(mutable))
    mutator.reset()
    return mutator


def net(*mutables):
    return nn.Sequential(*mutables)


def _item(index, module):
    op = layer()
    op[index] = module


def _delete(index):
    op = layer()
    del op[index]


def _applied_twice():
    model = net(layer(), InputChoice(2, key="in"))
    apply_fixed_architecture(model, {"op": "conv", "in": 0})
    apply_fixed_architecture(model, {"op": "conv", "in": 0})


def _set_twice():
    op = layer()
    op.set_mutator(object())
    op.set_mutator(1)


CASES = {
    # 1.1 mutables
    "a mutable gets a second mutator": (_set_twice, RuntimeError, ["LayerChoice 'op'", "object", "int"]),
    "a layer is called without a mutator": (
        lambda: layer()(X),
        ValueError,
        ["LayerChoice 'op'", "expected a mutator", "got none"],
    ),
    "an input is chosen without a mutator": (
        lambda: inputs()([X, X]),
        ValueError,
        ["InputChoice 'in'", "expected a mutator"],
    ),
    "a scope is called without a mutator": (lambda: Cell("cell")(X), ValueError, ["Cell 'cell'", "expected a mutator"]),
    # 1.2 scopes
    "a scope is made without a key": (lambda: Cell(), TypeError, ["key"]),
    # 1.3 layers
    "candidates are one module": (
        lambda: LayerChoice(nn.ReLU(), key="op"),
        TypeError,
        ["'op'", "list or a dict", "got ReLU"],
    ),
    "candidates are a set": (lambda: LayerChoice({nn.ReLU()}, key="op"), TypeError, ["'op'", "got set"]),
    "candidates are a generator": (lambda: LayerChoice(iter(()), key="op"), TypeError, ["'op'", "list or a dict"]),
    "a candidate is no module": (
        lambda: LayerChoice([3], key="op"),
        TypeError,
        ["'0'", "'op'", "must be a module", "got int"],
    ),
    "a name is no string": (lambda: LayerChoice({1: nn.ReLU()}, key="op"), TypeError, ["'op'", "strings", "got 1"]),
    "there are no candidates": (lambda: LayerChoice([], key="op"), ValueError, ["'op'", "at least one"]),
    "there are no named candidates": (lambda: LayerChoice({}, key="op"), ValueError, ["'op'", "at least one"]),
    "a layer has an unknown reduction": (
        lambda: LayerChoice([nn.ReLU()], "avg", key="op"),
        ValueError,
        ["'op'", "'avg'", "'sum', 'mean', 'concat', 'none'"],
    ),
    "a position is out of range": (lambda: layer()[2], IndexError, ["'op'", "2 candidates", "index 2"]),
    "a name is unknown": (lambda: layer()["con"], KeyError, ["'op'", "'con'", "did you mean 'conv'"]),
    "a position out of range is replaced": (lambda: _item(2, nn.ReLU()), IndexError, ["'op'", "index 2"]),
    "a candidate is added": (lambda: _item("new", nn.ReLU()), KeyError, ["'op'", "'new'", "cannot be added"]),
    "a slice is replaced": (
        lambda: _item(slice(2), nn.ReLU()),
        TypeError,
        ["'op'", "one candidate at a time", "slice"],
    ),
    "a candidate is replaced by a number": (lambda: _item(0, 3), TypeError, ["'conv'", "'op'", "module", "got int"]),
    "an unknown name is removed": (lambda: _delete("con"), ValueError, ["'op'", "'con'", "did you mean 'conv'"]),
    "a position out of range is removed": (lambda: _delete(-3), IndexError, ["'op'", "index -3"]),
    "all candidates are removed": (lambda: _delete(slice(None)), ValueError, ["'op'", "conv, skip"]),
    # 1.4 inputs
    "neither names nor number": (
        lambda: InputChoice(key="in"),
        AssertionError,
        ["'in'", "n_candidates or choose_from", "neither"],
    ),
    "names and number differ": (
        lambda: inputs(n_candidates=3),
        AssertionError,
        ["'in'", "n_candidates=3", "expected the 2"],
    ),
    "no names": (lambda: InputChoice(choose_from=[], key="in"), AssertionError, ["'in'", "expected at least 1"]),
    "number zero": (lambda: InputChoice(0, key="in"), AssertionError, ["'in'", "n_candidates=0", "at least 1"]),
    "more are chosen than there are": (lambda: inputs(n_chosen=3), AssertionError, ["'in'", "0 to 2", "got 3"]),
    "fewer than none are chosen": (lambda: inputs(n_chosen=-1), AssertionError, ["'in'", "0 to 2", "got -1"]),
    "an input choice has an unknown reduction": (
        lambda: inputs(reduction="max"),
        ValueError,
        ["'in'", "'max'", "'sum'"],
    ),
    "inputs are a tuple": (lambda: inputs()((X, X)), AssertionError, ["'in'", "list or a dict", "got tuple"]),
    "inputs are too few": (lambda: inputs()([X]), AssertionError, ["'in'", "2 candidates", "got 1"]),
    "an input is missing": (lambda: inputs()({"a": X, "c": X}), KeyError, ["'in'", "['a', 'b']", "no input 'b'"]),
    # 1.5 binding
    "two mutators for one model": (
        lambda: [model := net(layer()), RandomMutator(model), BaseMutator(model)],
        RuntimeError,
        ["LayerChoice 'op'", "RandomMutator", "expected none", "BaseMutator"],
    ),
    "a source comes later": (
        lambda: BaseMutator(net(inputs(), layer("a"), layer("b"))),
        RuntimeError,
        ["InputChoice 'in'", "'a'", "expected the key of an earlier mutable"],
    ),
    "a choice is its own source": (
        lambda: BaseMutator(net(layer("b"), inputs("a"))),
        RuntimeError,
        ["InputChoice 'a' chooses from 'a'", "earlier"],
    ),
    "a scope and a choice have one key": (
        lambda: BaseMutator(net(Cell("op"), layer())),
        RuntimeError,
        ["key 'op'", "a Cell at '0'", "a LayerChoice at '1'"],
    ),
    "layers of one key differ in length": (
        lambda: BaseMutator(net(layer(), LayerChoice([nn.ReLU()], key="op"))),
        RuntimeError,
        ["key 'op'", "['conv', 'skip', None]", "[0, None]"],
    ),
    "a mutator is called": (lambda: BaseMutator(net(layer()))(X), RuntimeError, ["BaseMutator", "call the model"]),
    "a mutator gets another model": (
        lambda: setattr(BaseMutator(net(layer())), "model", net(layer())),
        AttributeError,
        ["BaseMutator", "belongs to one model"],
    ),
    "a mutator is copied": (
        lambda: copy.deepcopy(BaseMutator(net(layer()))),
        RuntimeError,
        ["BaseMutator", "state_dict"],
    ),
    "there is no callback for layers": (
        lambda: [model := net(layer()), BaseMutator(model), model(X)],
        NotImplementedError,
        ["BaseMutator", "on_forward_layer_choice", "'op'"],
    ),
    "there is no callback for inputs": (
        lambda: [model := net(InputChoice(1, key="in")), BaseMutator(model), model([X])],
        NotImplementedError,
        ["BaseMutator", "on_forward_input_choice", "'in'"],
    ),
    "there is no export": (lambda: BaseMutator(net(layer())).export(), NotImplementedError, ["BaseMutator", "export"]),
    "a tree is walked in another order": (
        lambda: BaseMutator(net(layer())).mutables.traverse("in"),
        AssertionError,
        ["'pre' or 'post'", "got 'in'"],
    ),
    # 1.6 masks
    "the model runs before a reset": (
        lambda: [model := net(layer()), RandomMutator(model), model(X)],
        ValueError,
        ["RandomMutator", "LayerChoice 'op'", "expected one", "got none", "reset()"],
    ),
    "the sampler left a key out": (
        lambda: masked(layer(), {"other": [True]}).model(X),
        ValueError,
        ["LayerChoice 'op'", "expected one", "got decisions for ['other']"],
    ),
    "a mask is too long": (
        lambda: masked(layer(), {"op": [True] * 3}).model(X),
        AssertionError,
        ["LayerChoice 'op'", "2 entries", "got (3,)"],
    ),
    "an exported mask is too long": (
        lambda: masked(layer(), {}, {"op": [True] * 3}).export(),
        AssertionError,
        ["LayerChoice 'op'", "2 entries", "got (3,)"],
    ),
    "the final architecture lacks a key": (
        lambda: masked(layer(), {}, {}).export(),
        KeyError,
        ["Masks", "leaves out 'op'", "expected ['op']"],
    ),
    "the final architecture has another key": (
        lambda: masked(layer(), {}, {"op": [True, False], "po": [True]}).export(),
        ValueError,
        ["Masks", "'po'", "'op'"],
    ),
    "there is no sampler": (
        lambda: MaskMutator(net(layer())).reset(),
        NotImplementedError,
        ["MaskMutator", "sample_search"],
    ),
    # 1.7 kinds of masks
    "a mask is of integers": (
        lambda: masked(layer(), {"op": torch.tensor([1, 0])}).model(X),
        TypeError,
        ["LayerChoice 'op'", "bool or floating", "got torch.int64"],
    ),
    "a mask is a tuple": (
        lambda: masked(layer(), {"op": (True, False)}).model(X),
        TypeError,
        ["LayerChoice 'op'", "got tuple (True, False)"],
    ),
    # 1.9 and 1.10 architectures
    "an architecture has another key": (
        lambda: FixedArchitecture(net(layer()), {"op": "conv", "opp": 1}),
        RuntimeError,
        ["['opp']", "expected ['op']", "did you mean 'op'"],
    ),
    "an architecture lacks a key": (
        lambda: FixedArchitecture(net(layer()), {}),
        RuntimeError,
        ["leaves out ['op']", "expected ['op']", "got []"],
    ),
    "an architecture names an unknown candidate": (
        lambda: FixedArchitecture(net(layer()), {"op": "con"}),
        ValueError,
        ["LayerChoice 'op'", "'con'", "did you mean 'conv'"],
    ),
    "an architecture has a position out of range": (
        lambda: FixedArchitecture(net(layer()), {"op": 2}),
        ValueError,
        ["LayerChoice 'op'", "no candidate 2", "0, 1"],
    ),
    "an architecture has bools of another length": (
        lambda: FixedArchitecture(net(layer()), {"op": [False, True, True]}),
        ValueError,
        ["LayerChoice 'op'", "2 candidates", "got [False, True, True]"],
    ),
    "an architecture is applied twice": (
        _applied_twice,
        RuntimeError,
        ["InputChoice 'in'", "FixedArchitecture", "expected none"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_error_has_its_builtin_type_and_says_what_came_and_what_is_expected(case):
    act, builtin, texts = CASES[case]
    with pytest.raises(builtin) as caught:
        act()
    message = str(caught.value)
    assert [text for text in texts if text not in message] == []
    # The signature of a class says what is missing, not the library.
    assert isinstance(caught.value, MutorchError) or case == "a scope is made without a key"
