import copy
import functools
from types import SimpleNamespace

import pytest
from torch import nn

from mutorch.errors import ConfigError, MutorchError, RegistryError
from mutorch.registry import DATASETS, MODELS, Registry


class Net(nn.Module):
    def __init__(self, width=1, **others):
        super().__init__()
        self.width = width
        self.others = others


@pytest.fixture
def models():
    return Registry("models", kind=nn.Module, builtins={"Tanh": "torch.nn"}, torch_names=nn)


def test_a_decorator_registers_under_its_class_name(models):
    assert models.register_module()(Net) is Net
    assert models.get("Net") is models.module_dict["Net"] is Net
    assert "Net" in models
    assert len(models) == 1


def test_a_bare_decorator_and_a_call_register_too(models):
    assert models.register_module(Net) is Net
    assert models.register_module(name="Other", module=Net) is Net
    assert models.register_module("Third", Net) is Net
    assert list(models.module_dict) == ["Net", "Other", "Third"]


def test_a_name_can_be_given(models):
    models.register_module(name="Mine")(Net)
    assert isinstance(models.build({"type": "Mine"}), Net)
    assert "Net" not in models


def test_functions_and_partials_can_be_registered(models):
    models.register_module("wide", functools.partial(Net, width=9))
    assert models.build({"type": "wide"}).width == 9


def _a_class(module, name="Net"):
    return type(name, (nn.Module,), {"__module__": module, "__qualname__": name})


def test_a_taken_name_is_an_error_unless_forced(models):
    models.register_module(module=_a_class("one"))
    other = _a_class("two")
    with pytest.raises(KeyError, match="has 'Net' already, from one; .* force=True"):
        models.register_module(module=other)
    models.register_module(module=other, force=True)
    assert models.get("Net") is other


def test_running_a_definition_again_replaces_it(models):
    models.register_module(module=_a_class("notebook"))
    again = _a_class("notebook")
    models.register_module(module=again)
    assert models.get("Net") is again


@pytest.mark.parametrize(("module", "name"), [(Net, "a.b"), (Net, ""), (functools.partial(Net), None)])
def test_a_name_is_a_word_without_dots(models, module, name):
    with pytest.raises(RegistryError, match="needs a name without dots"):
        models.register_module(name, module)


def test_only_callables_can_be_registered(models):
    with pytest.raises(TypeError, match="a class or a function can be registered, not 3"):
        models.register_module("three", 3)


def test_a_registered_class_wins_over_a_built_in_and_torch(models):
    for name in ("Tanh", "Conv2d"):
        models.register_module(name)(Net)
    for name in ("Tanh", "mmrazor.Tanh", "mutorch.Tanh", "Conv2d"):
        assert models.get(name) is Net
    assert models.get("nn.Conv2d") is nn.Conv2d


@pytest.mark.parametrize("name", ["Linear", "nn.Linear", "torch.Linear", "torch.nn.Linear"])
def test_torch_classes_can_be_named(models, name):
    assert models.get(name) is nn.Linear


@pytest.mark.parametrize("name", ["functional", "Parameter", "mutorch.Linear", "nn.absent", "x.Net"])
def test_other_names_are_not_held(models, name):
    assert name not in models


def test_the_package_of_a_class_is_its_scope(models):
    net = _a_class("mypkg.models")
    models.register_module(module=net)
    assert isinstance(models.build({"type": "mypkg.Net"}), net)
    assert isinstance(models.build({"type": "Net", "_scope_": "mypkg"}), net)
    assert isinstance(models.build({"type": "ReLU", "_scope_": "mypkg"}), nn.ReLU)


@pytest.mark.parametrize("scope", ["mmrazor", "mutorch"])
def test_scope_is_a_preference(models, scope):
    assert isinstance(models.build({"_scope_": scope, "type": "Tanh"}), nn.Tanh)
    assert isinstance(models.build({"_scope_": scope, "type": "ReLU"}), nn.ReLU)


@pytest.mark.parametrize("cfg", [{"type": "mmdet.Net"}, {"type": "Net", "_scope_": "mmdet"}])
def test_an_unknown_scope_is_an_error_with_the_known_ones(models, cfg):
    models.register_module(module=_a_class("mypkg"))
    with pytest.raises(RegistryError, match="no scope 'mmdet'; .*'mutorch', 'mmrazor'.*'mypkg'"):
        models.build(cfg)


@pytest.mark.parametrize(("name", "hint"), [("Conv2D", "'Conv2d'"), ("mmrazor.Tahn", "'Tanh'"), ("Ne", "'Net'")])
def test_an_unknown_name_is_a_key_error_with_near_names(models, name, hint):
    models.register_module(Net)
    with pytest.raises(KeyError, match=f"models has no '{name}'; did you mean .*{hint}"):
        models.build({"type": name})


def test_type_may_be_a_class_or_a_function(models):
    assert models.build({"type": Net, "width": 3}).width == 3
    assert models.build({"type": functools.partial(Net, 4)}).width == 4


def test_defaults_give_way_to_the_config(models):
    assert models.build({"type": Net}, width=5).width == 5
    assert models.build({"type": Net, "width": 6}, width=5).width == 6


def test_an_instance_is_returned_as_it_is(models):
    net = Net()
    assert models.build(net) is net


def test_build_changes_no_dict_of_the_caller(models):
    def writes(inner, items):
        inner["written"] = items[0]["written"] = True
        return SimpleNamespace(inner=inner)

    leaf = Net()
    cfg = {"_scope_": "nn", "type": writes, "inner": {"net": leaf}, "items": [{}]}
    before = copy.copy(cfg["inner"])
    assert models.build(cfg).inner["net"] is leaf
    assert cfg == {"_scope_": "nn", "type": writes, "inner": before, "items": [{}]}


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        (None, AttributeError, "models cannot build None"),
        ("Net", TypeError, "builds from a dict with a 'type', got str: 'Net'"),
        ({"typ": "Net"}, KeyError, r"this one has \['typ'\]"),
        ({"cfg_path": "mmcls::a.py"}, ConfigError, "asks for a model zoo config"),
        ({"type": 3}, TypeError, "a name, a class or a function, got 3"),
    ],
)
def test_a_wrong_config_is_an_error(models, cfg, error, message):
    with pytest.raises(error, match=message) as caught:
        models.build(cfg)
    assert isinstance(caught.value, MutorchError)


def test_a_failing_constructor_keeps_its_error_and_says_where(models):
    models.register_module("Outer")(lambda inner: models.build(inner))
    cfg = {"type": "Outer", "inner": {"type": "Linear", "in_feature": 2}}
    with pytest.raises(TypeError, match="in_feature") as caught:
        models.build(cfg)
    assert caught.value.__notes__ == [
        "while building 'Linear' of models with ['in_feature']",
        "while building 'Outer' of models with ['inner']",
    ]


def test_custom_imports_of_a_config_run_first(models):
    cfg = {"type": Net, "custom_imports": {"imports": ["absent_package"]}}
    with pytest.raises(ConfigError, match="'absent_package' cannot be imported"):
        models.build(cfg)


def test_repr_shows_what_is_there(models):
    models.register_module(Net)
    assert repr(models) == "Registry('models', registered=['Net'], builtins=['Tanh'])"


def test_a_registry_needs_no_kind_and_no_tables():
    registry = Registry("things")
    registry.register_module("thing")(dict)
    assert registry.build({"type": "thing", "a": 1}) == {"a": 1}
    with pytest.raises(RegistryError, match="no scope 'nn'"):
        registry.build({"type": "nn.Linear"})


def test_the_library_registries_build_torch_models_but_no_torch_data():
    assert isinstance(MODELS.build({"_scope_": "mmrazor", "type": "ReLU"}), nn.ReLU)
    assert "Linear" not in DATASETS
