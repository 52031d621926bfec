import copy

import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError, ConfigError, RegistryError
from mutorch.mutables import OneShotMutableOP, build_candidates
from mutorch.registry import MODELS

LINEAR = {"type": "nn.Linear", "out_features": 3}


def test_configs_are_built_with_the_shared_arguments_and_stay_as_they_were():
    configs = {
        "linear": LINEAR,
        "wide": {"type": nn.Linear, "in_features": 9, "out_features": 5},
        "skip": nn.Identity(),
    }
    before = copy.copy(configs), copy.deepcopy(LINEAR)
    arguments = {"in_features": 2, "bias": False}
    for _ in range(2):
        built = build_candidates(configs, arguments)
        assert [type(module) for module in built.values()] == [nn.Linear, nn.Linear, nn.Identity]
        assert (built["linear"].in_features, built["wide"].in_features, built["linear"].bias) == (2, 2, None)
        assert built["skip"] is configs["skip"]
    assert (configs, LINEAR) == before
    assert arguments == {"in_features": 2, "bias": False}


def test_a_module_dict_is_kept_by_reference():
    candidates = nn.ModuleDict({"a": nn.ReLU()})
    assert build_candidates(candidates, {"inplace": True}) is candidates
    op = OneShotMutableOP(candidates)
    candidates["b"] = nn.GELU()
    assert op.choices == ["a", "b"]


def test_blocks_that_share_a_module_dict_are_fixed_apart():
    candidates = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
    first, second = OneShotMutableOP(candidates), OneShotMutableOP(candidates)
    first.fix_chosen("a")
    second.fix_chosen("b")
    x = torch.tensor([-1.0])
    assert (first(x), second(x)) == (0, x.tanh())
    assert list(candidates) == ["a", "b"]


def test_a_nested_config_hands_the_arguments_on():
    nested = {"type": "OneShotMutableOP", "candidates": {"linear": LINEAR}, "module_kwargs": {"bias": False}}
    inner = {"type": OneShotMutableOP, "candidates": {"linear": LINEAR, "deeper": nested}}
    configs = {"inner": inner, "linear": LINEAR}
    before = copy.deepcopy(configs)
    op = OneShotMutableOP(configs, module_kwargs={"in_features": 2})
    assert op._candidates["inner"]._candidates["deeper"]._candidates["linear"].bias is None
    assert op._candidates["inner"]._candidates["linear"].bias is not None
    assert op(torch.ones(1, 2)).shape == (1, 3)
    assert configs == before


def test_a_whole_block_is_built_from_its_config():
    config = {
        "_scope_": "mmrazor",
        "type": "OneShotMutableOP",
        "alias": "stem",
        "init_cfg": {"type": "Kaiming"},
        "candidates": {
            "relu": {"type": "nn.ReLU"},
            "mmrazor": {"type": "mmrazor.OneShotMutableOP", "candidates": {"x": LINEAR}},
        },
        "module_kwargs": None,
    }
    config["candidates"]["mmrazor"]["candidates"]["x"] = {**LINEAR, "in_features": 2}
    op = MODELS.build(config)
    assert isinstance(op, OneShotMutableOP)
    assert (op.alias, op.choices, op.init_cfg) == ("stem", ["relu", "mmrazor"], {"type": "Kaiming"})


@pytest.mark.parametrize("candidates", [{}, nn.ModuleDict()])
@pytest.mark.parametrize("error", [ChoiceError, AssertionError])
def test_no_candidates_is_an_error(candidates, error):
    with pytest.raises(error, match="candidates is empty"):
        OneShotMutableOP(candidates)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([nn.ReLU()], "must be an nn.ModuleDict, or a dict .* got list"),
        (nn.ModuleList([nn.ReLU()]), "must be an nn.ModuleDict, or a dict .* got ModuleList"),
        ({"a": 3}, "candidate 'a' must be an nn.Module or a config with `type`, got int"),
        ({"a": nn.ReLU}, "candidate 'a' must be an nn.Module or a config with `type`, got type"),
        ({3: nn.ReLU()}, "candidate names must be strings, got 3"),
        ({"a": {"type": dict}}, "candidate 'a' built a dict, which is no nn.Module"),
    ],
)
def test_anything_else_is_a_type_error(candidates, message):
    with pytest.raises(TypeError, match=message):
        OneShotMutableOP(candidates)


@pytest.mark.parametrize("name", ["conv.3x3", "", "keys", "type"])
def test_names_that_a_module_dict_cannot_hold_are_refused(name):
    with pytest.raises(ConfigError, match=f"candidate name '{name}' cannot be used in an nn.ModuleDict"):
        OneShotMutableOP({name: nn.ReLU()})


def test_an_unknown_type_is_named_with_the_nearest():
    with pytest.raises(RegistryError, match="models has no 'OneShotMutable0P'; did you mean 'OneShotMutableOP'"):
        OneShotMutableOP({"a": {"type": "OneShotMutable0P"}}, module_kwargs={"x": 1})
    with pytest.raises(KeyError, match="builds from a dict with a 'type'"):
        OneShotMutableOP({"a": {"kind": "ReLU"}}, module_kwargs={"x": 1})
