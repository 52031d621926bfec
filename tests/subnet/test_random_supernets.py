"""The first invariant, on random supernets: what is exported computes what the supernet computes."""

import copy
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import build, counterpart, inputs, recipes

from mutorch import Mutator, export, load, save
from mutorch.utils import evaluating

seeds = st.integers(0, 2**16)


def outputs(model, seed=0):
    with torch.no_grad(), evaluating(model):
        return model(inputs(seed))


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@given(recipes(), seeds)
def test_an_exported_subnet_equals_the_supernet_bit_for_bit(recipe, seed):
    net = build(recipe)
    mutator = Mutator(net)
    before, choices = state(net), mutator.current_choices
    architecture = mutator.space.sample(seed)
    subnet = export(net, architecture)
    with mutator.at(architecture):
        assert torch.equal(outputs(subnet), outputs(net))
    assert same(state(net), before)
    assert mutator.current_choices == choices


@given(recipes(), seeds)
def test_hidden_decisions_do_not_change_what_is_computed(recipe, seed):
    net = build(recipe)
    mutator = Mutator(net)
    architecture = mutator.space.sample(seed)
    with mutator.at(architecture):
        found = outputs(net)
    with mutator.at(mutator.space.canonical(architecture)):
        assert torch.equal(outputs(net), found)


@given(recipes(), seeds)
def test_an_exported_subnet_has_the_supernets_gradients(recipe, seed):
    net = build(recipe)
    mutator = Mutator(net)
    architecture = mutator.space.sample(seed)
    subnet = export(net, architecture)
    mutator.set_choices(architecture)
    for model in (net, subnet):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # dropout
            out = model.train()(inputs(seed))
        if out.requires_grad:
            out.square().mean().backward()
    for name, parameter in subnet.named_parameters():
        expected = counterpart(net, name).grad
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None:
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-6)


@given(recipes(), seeds)
def test_an_exported_subnet_is_plain_and_owns_its_tensors(recipe, seed):
    net = build(recipe)
    subnet = export(net, Mutator(net).space.sample(seed))
    assert not [type(m) for m in subnet.modules() if type(m).__module__.split(".")[0] == "mutorch"]
    assert not [name for name in subnet.state_dict() if "_candidates" in name]
    supernets = {tensor.untyped_storage().data_ptr() for tensor in net.state_dict().values()}
    for tensor in subnet.state_dict().values():
        storage = tensor.untyped_storage()
        assert storage.data_ptr() not in supernets
        assert storage.nbytes() == tensor.numel() * tensor.element_size()
    assert all(parameter.grad is None for parameter in subnet.parameters())


@given(recipes(), seeds)
def test_tensors_that_the_supernet_shares_the_subnet_shares(recipe, seed):
    net = build(recipe)
    mutator = Mutator(net)
    architecture = mutator.space.sample(seed)
    subnet = export(net, architecture)
    mutator.set_choices(architecture)
    mapped = {}
    for name, parameter in subnet.named_parameters(remove_duplicate=False):
        mapped.setdefault(id(counterpart(net, name)), set()).add(id(parameter))
    assert all(len(copies) == 1 for copies in mapped.values())
    assert len(mapped) == len(list(subnet.parameters()))


@given(recipes(), seeds)
@settings(max_examples=30)
def test_copies_of_a_supernet_are_searchable_on_their_own(recipe, seed):
    net = build(recipe)
    mutator = Mutator(net)
    expected = outputs(net)
    architecture = mutator.space.sample(seed)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        other = Mutator(copied)
        assert (other.space, other.current_choices) == (mutator.space, mutator.current_choices)
        other.set_choices(architecture)
        assert torch.equal(outputs(net), expected)
        with mutator.at(architecture):
            assert torch.equal(outputs(copied), outputs(net))


@given(recipes(), seeds)
@settings(max_examples=30)
def test_copies_of_a_subnet_compute_the_same(recipe, seed):
    net = build(recipe)
    subnet = export(net, Mutator(net).space.sample(seed))
    expected = outputs(subnet)
    assert torch.equal(outputs(copy.deepcopy(subnet)), expected)
    assert torch.equal(outputs(pickle.loads(pickle.dumps(subnet))), expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@given(recipes(), seeds)
@settings(max_examples=20)
def test_a_saved_subnet_comes_back_into_another_build(suffix, recipe, seed):
    net = build(recipe)
    subnet = export(net, Mutator(net).space.sample(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = save(subnet, Path(folder) / f"net{suffix}")
        loaded = load(path, lambda: build(recipe, seed=1))
    assert same(state(loaded), state(subnet))
    assert torch.equal(outputs(loaded), outputs(subnet))
    tied = [len(list(model.parameters())) for model in (loaded, subnet)]
    assert tied[0] == tied[1]


@given(recipes())
@settings(max_examples=30)
def test_a_model_built_three_times_has_the_same_space(recipe):
    spaces = [Mutator(build(recipe, seed=number)).space for number in range(3)]
    assert len({(space.names, space.fingerprint) for space in spaces}) == 1


@given(recipes(), seeds)
@settings(max_examples=30)
def test_the_space_does_not_depend_on_the_choices_in_force(recipe, seed):
    net = build(recipe)
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(seed))
    assert Mutator(net).space.fingerprint == mutator.space.fingerprint


@given(recipes(), seeds)
@settings(max_examples=30)
def test_fixing_in_place_computes_what_export_computes(recipe, seed):
    net = build(recipe)
    architecture = Mutator(net).space.sample(seed)
    expected = outputs(export(net, architecture))
    Mutator(net).fix_choices(architecture)
    assert torch.equal(outputs(net), expected)
    assert torch.equal(outputs(export(net)), expected)


RECIPE = (
    "chain",
    (
        ("choice", (("kernel", "kernel"), ("choice", (("conv",), ("scale", "loose", None)), "shared")), None),
        ("depth", (("choice", (("norm",), ("relu",)), "shared"), ("kernel", "kernel")), None),
        ("twice", ("same candidate", ("tied",), ("skip",))),
    ),
)


def test_an_architecture_saved_in_one_process_is_valid_in_another():
    net = build(RECIPE)
    mutator = Mutator(net)
    architecture = mutator.space.sample(5)
    code = (
        "import json, sys, torch; from strategies import build, inputs; from mutorch import Mutator, export\n"
        "recipe, architecture = eval(sys.argv[1]), json.loads(sys.argv[2])\n"
        "net = build(recipe); mutator = Mutator(net); mutator.set_choices(architecture)\n"
        "out = export(net, architecture).eval()(inputs()).double().sum().item()\n"
        "print(json.dumps([mutator.space.fingerprint, mutator.current_choices, out]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "1"}
    arguments = [sys.executable, "-c", code, repr(RECIPE), json.dumps(architecture)]
    other = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    expected = outputs(export(net, architecture)).double().sum().item()
    assert json.loads(other.stdout) == [mutator.space.fingerprint, architecture, expected]
