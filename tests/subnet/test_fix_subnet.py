import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from mutorch import Mutator
from mutorch.errors import ChoiceError, ConfigError, FixedError, LoadError, MutorchError, SpaceError
from mutorch.mutables import DumpChosen, MutableValue, OneShotMutableOP
from mutorch.subnet import convert_fix_subnet, export_fix_subnet, load_fix_subnet

X = torch.linspace(-1, 1, 6).reshape(3, 2)


class Net(nn.Module):
    """Two blocks, a value with an alias, a derived value, and a nested block."""

    def __init__(self):
        super().__init__()
        self.mutable1 = OneShotMutableOP({"conv1": nn.Linear(2, 2), "conv2": nn.Identity()})
        nested = OneShotMutableOP({"relu": nn.ReLU(), "tanh": nn.Tanh()})
        self.mutable2 = OneShotMutableOP({"deep": nn.Sequential(nested), "skip": nn.Identity()}, alias="second")
        self.kernel = MutableValue([1, 3], alias="kernel_size")
        self.shape = MutableValue([(1, 2), (2, 1)])
        self.derived = self.kernel * 2

    def forward(self, x):
        return self.mutable2(self.mutable1(x)) * self.derived.current_choice * self.shape.current_choice[0]


NESTED = "mutable2._candidates.deep.0"
CHOICES = {"mutable1": "conv2", "second": "deep", NESTED: "tanh", "kernel_size": 3, "shape": [2, 1]}


def net_at(choices):
    net = Net()
    Mutator(net).set_choices(choices)
    return net


def test_the_current_choices_are_exported_by_alias_or_path():
    net = net_at(CHOICES)
    subnet, plain = export_fix_subnet(net)
    assert plain is None
    assert convert_fix_subnet(subnet) == {name: {"chosen": c} for name, c in {**CHOICES, "shape": (2, 1)}.items()}
    assert all(isinstance(value, DumpChosen) for value in subnet.values())
    assert subnet["mutable1"].meta == {"all_choices": ["conv1", "conv2"]}


def test_the_plain_model_comes_along_if_asked_for():
    net = net_at(CHOICES)
    _, plain = export_fix_subnet(net, slice_weight=True)
    assert torch.equal(plain(X), net(X))
    assert not any(isinstance(module, OneShotMutableOP) for module in plain.modules())
    assert isinstance(net.mutable1, OneShotMutableOP)


@pytest.mark.parametrize("form", ["dump", "mapping", "bare", ".yaml", ".yml", ".json", "path text"])
def test_a_subnet_is_loaded_from_every_form(tmp_path, form):
    source = net_at(CHOICES)
    subnet, _ = export_fix_subnet(source)
    plain = {name: {"chosen": choice} for name, choice in CHOICES.items()}
    forms = {"dump": subnet, "mapping": convert_fix_subnet(subnet), "bare": CHOICES}
    if form not in forms:
        path = tmp_path / f"subnet{form if form.startswith('.') else '.yaml'}"
        path.write_text(json.dumps(plain) if form == ".json" else yaml.safe_dump(plain))
        forms[form] = str(path) if form == "path text" else path
    given = copy.deepcopy(forms[form])
    for _ in range(2):
        net = Net()
        load_fix_subnet(net, given)
        assert torch.equal(net(X), source(X))
        assert list(net.state_dict()) == []
        assert export_fix_subnet(net)[0].keys() == subnet.keys()
    assert given == forms[form]


def test_decisions_inside_a_candidate_that_is_not_chosen_need_no_entry():
    net = Net()
    load_fix_subnet(net, {"mutable1": "conv2", "second": "skip", "kernel_size": 1, "shape": (1, 2)})
    again = Net()
    load_fix_subnet(again, convert_fix_subnet(export_fix_subnet(net)[0]))
    assert torch.equal(again(X), X * 2)


def test_what_is_fixed_already_is_skipped():
    net = Net()
    net.mutable1.fix_chosen("conv2")
    load_fix_subnet(net, {**CHOICES, "mutable1": "conv1"})
    assert net.mutable1.choices == ["conv2"]
    load_fix_subnet(net, {})
    assert net.kernel.current_choice == 3


def test_prefixes_are_prefixes_and_not_sets_of_characters():
    inner = nn.ModuleDict({"conv1": OneShotMutableOP({"a": nn.ReLU(), "b": nn.Tanh()})})
    wrapped = nn.ModuleDict({"architecture": copy.deepcopy(inner)})
    load_fix_subnet(wrapped, {"conv1": "b"}, prefix="architecture.")
    assert wrapped["architecture"]["conv1"].choices == ["b"]
    load_fix_subnet(inner, {"architecture.conv1": "b"}, extra_prefix="architecture.")
    assert inner["conv1"].choices == ["b"]


def test_an_alias_takes_no_prefix():
    net = nn.ModuleDict({"backbone": OneShotMutableOP({"a": nn.ReLU()}, alias="stem")})
    load_fix_subnet(net, {"stem": "a"}, extra_prefix="model.")
    assert net["backbone"].is_fixed


def test_a_model_that_is_itself_a_mutable_is_called_root():
    net = OneShotMutableOP({"a": nn.ReLU(), "b": nn.Tanh()})
    net.current_choice = "b"
    subnet, _ = export_fix_subnet(net)
    load_fix_subnet(net, subnet)
    assert (list(subnet), net.choices) == (["root"], ["b"])


def test_dynamic_modules_are_replaced_by_their_static_form():
    class Dynamic(nn.Linear):
        def to_static_op(self):
            return nn.Linear(self.in_features, 1)

    net = nn.Sequential(OneShotMutableOP({"a": nn.Sequential(Dynamic(2, 2))}), Dynamic(1, 2))
    load_fix_subnet(net, {"0": "a"})
    assert type(net[1]) is type(net[0].candidates["a"][0]) is nn.Linear
    with pytest.raises(RuntimeError, match="Dynamic is itself a dynamic op"):
        load_fix_subnet(Dynamic(2, 2), {})


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnet", "arguments", "errors", "message"),
    [
        (
            CHOICES,
            {"prefix": "a", "extra_prefix": "b"},
            (RuntimeError, ConfigError),
            "give prefix or extra_prefix, not both",
        ),
        (3, {}, (TypeError,), "a subnet is a dict or a file, got int"),
        ([CHOICES], {}, (TypeError,), "a subnet is a dict or a file, got list"),
        (CHOICES, {"load_subnet_mode": "mutabel"}, (ValueError,), "no mode 'mutabel'; did you mean 'mutable'"),
        (CHOICES, {"load_subnet_mode": "mutator"}, (ValueError,), "needs 'channel_unit_cfg' in the subnet"),
        ({"channel_unit_cfg": {}}, {"load_subnet_mode": "mutator"}, (ValueError,), "does not run on demo_input"),
        ({k: v for k, v in CHOICES.items() if k != "second"}, {}, (AssertionError, LoadError), "no entry 'second' for"),
        (
            {k: v for k, v in CHOICES.items() if k != "mutable1"},
            {},
            (RuntimeError, KeyError),
            "no entry 'mutable1' for",
        ),
        (
            {**CHOICES, "mutable1": "conv"},
            {},
            (ValueError, ChoiceError),
            "'mutable1' has no choice 'conv'; did you mean",
        ),
        ({**CHOICES, "shape": [3, 3]}, {}, (AssertionError,), r"'shape' has no choice \[3, 3\]"),
        ({**CHOICES, "mutable1": {"choice": 1}}, {}, (SpaceError,), r"has no 'chosen', only \['choice'\]"),
    ],
)
def test_a_subnet_that_does_not_fit_fixes_nothing(subnet, arguments, errors, message):
    net = Net()
    for error in errors:
        with pytest.raises(error, match=message):
            load_fix_subnet(net, subnet, **arguments)
    assert not any(module.is_fixed for module in (net.mutable1, net.mutable2, net.kernel, net.shape))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.yaml", None, "no file .*none.yaml"),
        ("subnet.pkl", "", "pickles can run code and are not read"),
        ("list.json", "[1]", "holds a list, not a dict"),
        ("broken.json", "{", "broken.json cannot be read"),
        ("unsafe.yaml", "a: !!python/name:os.system ''", "unsafe.yaml cannot be read"),
    ],
)
def test_files_that_hold_no_subnet_are_refused(tmp_path: Path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(LoadError, match=message):
        load_fix_subnet(Net(), tmp_path / name)


def test_an_export_needs_choices_and_a_known_mode():
    with pytest.raises(AssertionError, match="OneShotMutableOP has no current choice to dump"):
        export_fix_subnet(Net())
    with pytest.raises(ValueError, match="no mode 'mutables'; did you mean 'mutable'"):
        export_fix_subnet(Net(), "mutables")
    net = Net()
    with pytest.raises(ValueError, match="needs a model whose attribute `mutator` has a config_template"):
        export_fix_subnet(net, "mutator")


def test_mode_mutator_asks_the_models_mutator():
    class Channels:
        def config_template(self, **arguments):
            return arguments

    net = Net()
    net.mutator = Channels()
    subnet, _ = export_fix_subnet(net, "mutator", export_channel=True)
    assert subnet == {"with_channels": True, "with_unit_init_args": True}


@pytest.mark.parametrize("error", [MutorchError, AssertionError])
def test_only_dumps_are_converted(error):
    with pytest.raises(error, match="entry 'a' must be a DumpChosen, got str"):
        convert_fix_subnet({"a": "conv"})


def test_a_fixed_model_stays_fixed():
    net = net_at(CHOICES)
    load_fix_subnet(net, CHOICES)
    with pytest.raises(FixedError, match="already fixed to 'conv2'"):
        net.mutable1.fix_chosen("conv1")
