"""Decisions by masks: reset, status, export (seed 004)."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from mutorch.cost import CostTable
from mutorch.errors import ExportError, MissingDecisionError, UndecidedError
from mutorch.mutables import InputChoice, LayerChoice, MutableScope
from mutorch.mutators import DartsMutator, FixedArchitecture, MaskMutator, Mutator, RandomMutator, active_modules
from mutorch.subnet import export
from mutorch.training import arch_step, relaxed_step, single_path_step

X = torch.linspace(-1, 1, 4).reshape(2, 2)


class Given(MaskMutator):
    """Decides what it is given."""

    def __init__(self, model, search=None, final=None):
        super().__init__(model)
        self.search, self.final = search, final

    def sample_search(self):
        return self.search

    def sample_final(self):
        return self.final


class Cell(MutableScope):
    def __init__(self, key, op):
        super().__init__(key)
        self.op = op

    def forward(self, x):
        return self.op(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = LayerChoice({"linear": nn.Linear(2, 2), "tanh": nn.Tanh()}, key="op")
        self.two = Cell("cell", LayerChoice({"linear": nn.Linear(2, 2), "tanh": nn.Tanh()}, key="op"))
        self.listed = LayerChoice([nn.ReLU(), nn.Sigmoid()], key="listed")
        self.skip = InputChoice(choose_from=["op", "cell", "listed"], key="skip", reduction="mean")

    def forward(self, x):
        return self.skip([self.one(x), self.two(x), self.listed(x)])


SEARCH = {"op": [False, True], "listed": [0.5, 0.5], "skip": [True, True, True]}


def test_equal_keys_are_one_decision():
    net = Net()
    mutator = Given(net, SEARCH)
    assert mutator.reset() is None
    mixed = (X.relu() + X.sigmoid()) * 0.5
    assert torch.allclose(net(X), (2 * X.tanh() + mixed) / 3)


def test_decisions_stay_until_the_next_reset():
    net = Net()
    mutator = Given(net, SEARCH)
    mutator.reset()
    before = net(X)
    mutator.search = {**SEARCH, "skip": [True, False, False]}
    assert torch.equal(net(X), before)
    mutator.reset()
    assert torch.equal(net(X), X.tanh())


def test_what_the_sampler_does_with_its_dict_afterwards_does_not_count():
    net, search = Net(), dict(SEARCH)
    mutator = Given(net, search)
    mutator.reset()
    search.clear()
    assert net(X).shape == X.shape


def test_a_failing_sampler_changes_nothing():
    net = Net()
    mutator = Given(net, SEARCH)
    mutator.reset()
    before = net(X)
    mutator.search = None
    with pytest.raises(TypeError):
        mutator.reset()
    assert torch.equal(net(X), before)


def test_before_the_first_reset_there_is_no_decision():
    net = Net()
    Given(net, SEARCH)
    with pytest.raises(ValueError, match=r"Given has no decision for LayerChoice 'op': .*call reset\(\) first"):
        net(X)


def test_a_key_that_the_sampler_left_out_is_named_when_it_is_called():
    net = Net()
    Given(net, {"op": [True, False]}).reset()
    with pytest.raises(UndecidedError, match=r"no decision for LayerChoice 'listed': .*decisions for \['op'\]"):
        net(X)


def test_choosers_are_what_is_decided_without_scopes_each_key_once():
    assert [chooser.key for chooser in Given(Net()).choosers] == ["op", "listed", "skip"]


def test_training_goes_to_what_is_taken_alone():
    net = Net()
    Given(net, {**SEARCH, "op": [True, False], "skip": [True, False, False]}).reset()
    net(X).sum().backward()
    assert net.one["linear"].weight.grad is not None
    assert net.two.op["linear"].weight.grad is None


# ---- status -------------------------------------------------------------------------------------------------------------


def test_status_is_plain_lists():
    mutator = Given(
        Net(), {"op": torch.tensor([True, False]), "listed": np.array([0.5, 0.25]), "skip": [True, False, True]}
    )
    assert mutator.status() == {}
    mutator.reset()
    assert mutator.status() == {"op": [True, False], "listed": [0.5, 0.25], "skip": [True, False, True]}
    assert json.loads(json.dumps(mutator.status())) == mutator.status()


def test_status_of_masks_with_gradients_is_plain_lists_too():
    mutator = Given(Net(), {**SEARCH, "listed": torch.tensor([0.5, 0.25], requires_grad=True)})
    mutator.reset()
    assert mutator.status()["listed"] == [0.5, 0.25]


# ---- export -------------------------------------------------------------------------------------------------------------


def exported(**changes):
    masks = {"op": [True, False], "listed": [False, True], "skip": [True, False, True]}
    return Given(Net(), final={**masks, **changes}).export()


def test_export_is_in_words_in_the_order_of_the_model():
    found = exported()
    assert found == {"op": "linear", "listed": 1, "skip": ["op", "listed"]}
    assert list(found) == ["op", "listed", "skip"]


def test_export_does_not_touch_what_the_sampler_gave_nor_the_model():
    net = Net()
    final = {"op": [True, False], "listed": [False, True], "skip": [True] * 3}
    mutator = Given(net, SEARCH, final)
    mutator.reset()
    before = net(X)
    assert mutator.export() == mutator.export()
    assert len(final) == 3
    assert torch.equal(net(X), before)


def test_a_key_that_is_left_out_of_the_final_architecture_is_a_key_error():
    with pytest.raises(
        MissingDecisionError, match=r"leaves out 'listed'; expected \['op', 'listed', 'skip'\]"
    ) as caught:
        Given(Net(), final={"op": [True, False]}).export()
    assert isinstance(caught.value, KeyError)


def test_a_key_that_the_model_does_not_have_is_a_value_error():
    with pytest.raises(ValueError, match="decides 'lister', which the model does not have; did you mean 'listed'"):
        exported(lister=[True])


def test_a_scope_has_no_place_in_a_final_architecture():
    with pytest.raises(ValueError, match="decides 'cell', which the model does not have"):
        exported(cell=[True])


def test_a_mask_of_another_length_is_an_assertion_error():
    with pytest.raises(AssertionError, match="the mask of LayerChoice 'op' must have 2 entries"):
        exported(op=[True])


@pytest.mark.parametrize("method", ["sample_search", "sample_final"])
def test_a_mutator_without_samplers_says_which_it_needs(method):
    with pytest.raises(NotImplementedError, match=rf"MaskMutator needs {method}\(\)"):
        getattr(MaskMutator(Net()), method)()


# ---- and the rest of the library -----------------------------------------------------------------------------------------


def test_a_final_architecture_of_single_choices_is_one_that_export_takes():
    net = Net()
    mutator = Given(net, final={"op": [False, True], "listed": [1.0, 0.0], "skip": torch.tensor([True, False, True])})
    plain = export(net, mutator.export())
    assert torch.equal(plain(X), (X.tanh() + X.relu()) / 2)


def test_the_choice_in_force_is_read_off_masks_where_it_is_one():
    net = Net()
    mutator = Given(net, {"op": [0.0, 1.0], "listed": [0.5, 0.5], "skip": [False, True, True]})
    mutator.reset()
    found = [module.current_choice for module in (net.one, net.two.op, net.listed, net.skip)]
    assert found == ["tanh", "tanh", None, ("cell", "listed")]


def test_a_mask_that_takes_two_candidates_of_a_layer_is_no_choice():
    net = Net()
    mutator = Given(net, {"op": [True, True], "listed": [False, False], "skip": [False] * 3})
    mutator.reset()
    assert [module.current_choice for module in (net.one, net.listed, net.skip)] == [None, None, ()]


@pytest.mark.parametrize("listed", [[0.5, 0.5], [True, True], [False, False]])
def test_masks_that_are_no_choice_are_not_exported_as_the_default(listed):
    net = Net()
    mutator = Given(net, {**SEARCH, "listed": listed})
    mutator.reset()
    with pytest.raises(RuntimeError, match="'listed' has no choice: a Given decides it, by a mask"):
        export(net)


def test_a_mutator_of_choices_takes_over_the_choices_that_masks_made():
    net = Net()
    mutator = Given(net, {"op": [0.0, 1.0], "listed": [False, True], "skip": [False, True, True]})
    mutator.reset()
    assert Mutator(net).current_choices == {"op": "tanh", "listed": 1, "skip": ["cell", "listed"]}


def test_a_fixed_choice_stays_fixed_under_masks():
    net = Net()
    net.listed.fix_chosen(1)
    mutator = Given(net, {"op": [False, True], "listed": [True], "skip": [False, False, True]})
    mutator.reset()
    assert torch.equal(net(X), X.sigmoid())


def test_fixed_choices_are_exported_as_they_are_fixed_and_read_back():
    def build():
        net = nn.Sequential(
            LayerChoice([nn.ReLU(), nn.Tanh(), nn.Identity()], key="layer"), InputChoice(3, n_chosen=1, key="one")
        )
        Mutator(net).fix_choices({"layer": 2, "one": 1})
        return net

    for seed in range(5):
        found = RandomMutator(build(), seed=seed).export()
        assert found == {"layer": 2, "one": 1}
    assert FixedArchitecture(build(), found).export() == found
    with pytest.raises(ValueError, match="LayerChoice 'layer' has no candidate 0, got 0; allowed: 2"):
        FixedArchitecture(build(), {"layer": 0, "one": 1})


# ---- who decides, after a reset ------------------------------------------------------------------------------------------


def one(mask, mutator=Given, candidates=None):
    net = nn.Sequential(LayerChoice(candidates or [nn.ReLU(), nn.Linear(2, 2), nn.Identity()], key="op"))
    masks = mutator(net, {"op": mask})
    masks.reset()
    return net, masks


def test_a_step_that_follows_masks_trains_the_path_that_its_own_mutator_chose():
    net, _ = one([True, False, False])
    single_path_step(net, Mutator(net), lambda model: model(X).sum(), seed=0, step=0)
    chosen = net[0].current_choice
    assert (net[0][1].weight.grad is not None) == (chosen == 1)
    for choice, modules in ((1, {"Linear"}), (0, {"ReLU"})):
        Mutator(net).set_choices({"op": choice})
        assert {type(module).__name__ for module in active_modules(net)} == {"Sequential", "LayerChoice", *modules}


def test_a_mask_made_for_candidates_that_are_removed_now_is_an_error():
    net, _ = one([False, True, False])
    del net[0][0]
    with pytest.raises(AssertionError, match=r"must have 2 entries, one a candidate; got \(3,\)"):
        net(X)


def test_a_candidate_that_is_replaced_after_a_reset_computes():
    net, _ = one([False, True, False])
    net[0][1] = nn.Tanh()
    assert torch.equal(net(X), X.tanh())


def test_a_mutator_that_let_go_decides_nothing_at_its_next_reset():
    net, masks = one([True, False, False])
    masks.unbind()
    Mutator(net).set_choices({"op": 2})
    masks.reset()
    assert torch.equal(net(X), X)


@pytest.mark.parametrize("kind", ["mask_of", "on_forward_layer_choice"])
def test_a_subclass_is_asked_in_every_forward_if_it_has_its_own_answer(kind):
    class Own(Given):
        asked = 0

    def answer(self, mutable, *args, **kwargs):
        Own.asked += 1
        return getattr(MaskMutator, kind)(self, mutable, *args, **kwargs)

    setattr(Own, kind, answer)
    net, _ = one([False, False, True], Own)
    assert torch.equal(net(X), X)
    net(X)
    assert Own.asked == 2


def test_masks_that_change_kind_from_reset_to_reset_all_count():
    net, masks = one([False, False, True])
    found = []
    for mask in ([0.0, 0.0, 2.0], [False, False, True], [True, False, True], [False] * 3, [True, False, False]):
        masks.search = {"op": mask}
        masks.reset()
        found.append(net(X))
    expected = [2 * X, X, X.relu() + X, None, X.relu()]
    assert all(
        one is other if other is None else torch.equal(one, other) for one, other in zip(found, expected, strict=True)
    )


def test_relaxing_learned_choices_after_a_reset_mixes_again():
    net, masks = one([True, False, False])
    choices = Mutator(net)
    choices.prepare_arch_params()
    mixed = net(X)
    masks.reset()
    assert torch.equal(net(X), X.relu())
    choices.relax()
    assert torch.equal(net(X), mixed)


def test_choices_that_are_learned_after_a_reset_are_open_and_train():
    net = Net()
    masks = Given(net, {"op": [True, False], "listed": [True, False], "skip": [True, False, False]})
    masks.reset()
    choices = Mutator(net)
    choices.prepare_arch_params()
    assert set(choices.current_choices.values()) == {None}
    with pytest.raises(ExportError, match="has no choice yet, it is being learned"):
        export(net)
    relaxed_step(net, choices, lambda model: model(X).sum(), seed=0, step=0)
    arch_step(net, choices, lambda model: model(X).sum(), seed=0, step=0)
    assert all(p.grad is not None for p in [*net.parameters(), *choices.arch_parameters()])
    assert set(choices.argmax()) == {"op", "listed", "skip"}


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_go_on_deciding_after_the_model_was_looked_at_elsewhere(kind):
    """A straight-through mask is a choice by its value, and has a gradient all the same."""
    net, masks = one([True, False, False])
    choices = Mutator(net)
    alpha = torch.zeros(3, requires_grad=True)
    hard = torch.tensor([True, False, False])
    masks.search = {"op": hard if kind == "bool" else hard + alpha.softmax(0) - alpha.softmax(0).detach()}
    masks.reset()
    with choices.at({"op": 2}):
        assert torch.equal(net(X), X)
    CostTable.from_model(choices, X)
    found = net(X)
    assert torch.equal(found, X.relu())
    assert choices.current_choices == {"op": 0}
    assert found.requires_grad == (kind == "float")


def test_a_mutator_of_choices_leaves_weights_in_force_until_it_sets_a_choice() -> None:
    net = nn.Sequential(LayerChoice([nn.Tanh(), nn.ReLU()], key="act"))
    darts = DartsMutator(net)
    darts.reset()
    mixed = net(X)
    mutator = Mutator(net)
    assert mutator.current_choices == {"act": None}
    assert torch.equal(net(X), mixed)
    mutator.set_choices({"act": 1})
    assert torch.equal(net(X), X.relu())
    darts.reset()
    assert torch.equal(net(X), mixed)
