import copy

import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import OneShotMutableValue, SequentialMutableChannel
from mutorch.ops import DynamicLinear, DynamicSequential

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def blocks():
    torch.manual_seed(0)
    return [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 4)]


def test_the_first_modules_run():
    made = DynamicSequential(*blocks())
    assert torch.equal(made(X), nn.Sequential(*blocks())(X))
    depth = OneShotMutableValue([1, 2, 3])
    made.register_mutable_attr("depth", depth)
    for count in (1, 2, 3):
        depth.current_choice = count
        assert torch.equal(made(X), nn.Sequential(*blocks()[:count])(X))
    assert (len(made), made.pure_module_nums, len(made.pure_modules())) == (3, 3, 3)
    assert [type(module) for module in made] == [nn.Linear, nn.Sequential, nn.Linear]
    assert made[-1] is made.pure_modules()[2]
    assert list(made.state_dict()) == list(nn.Sequential(*blocks()).state_dict())


def test_what_is_converted_is_shared():
    static = nn.Sequential(*blocks())
    made = DynamicSequential.convert_from(static)
    assert made[0] is static[0]
    assert torch.equal(made(X), static(X))


def test_the_static_sequence_has_no_dynamic_children():
    linear, width = DynamicLinear(4, 4), SequentialMutableChannel(4)
    linear.register_mutable_attr("out_features", width)
    made, depth = DynamicSequential(linear, nn.ReLU(), nn.ReLU()), OneShotMutableValue([1, 2])
    made.register_mutable_attr("depth", depth)
    width.current_choice, depth.current_choice = 3, 2
    with pytest.raises(RuntimeError, match="depth of DynamicSequential is still open"):
        made.to_static_op()
    depth.fix_chosen(2)
    with pytest.raises(RuntimeError, match="out_features of DynamicLinear is still open"):
        made.to_static_op()
    width.fix_chosen()
    plain = made.to_static_op()
    assert [type(module) for module in plain.modules()] == [nn.Sequential, nn.Linear, nn.ReLU]
    assert torch.equal(plain(X), made(X))
    assert type(made) is DynamicSequential  # left as it was
    assert copy.deepcopy(made)(X).shape == (2, 3)


def test_a_depth_beyond_the_modules_is_refused():
    with pytest.raises(ChoiceError, match="a depth of 4 is more than the 3 modules"):
        DynamicSequential(*blocks()).register_mutable_attr("depth", OneShotMutableValue([1, 4]))
