import pytest
import torch
from torch import nn

from mutorch.cost import count
from mutorch.errors import ChoiceError
from mutorch.models import (
    DartsDilConv,
    DartsPoolBN,
    DartsSepConv,
    DartsSkipConnect,
    DartsZero,
    DropPath,
    darts_candidates,
    set_drop_path_rate_,
)
from mutorch.registry import MODELS

X = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGE = torch.zeros(1, 16, 32, 32)


@pytest.mark.parametrize(
    ("name", "parameters", "flops"),
    [
        ("zero", (0, 0), (0, 0)),
        ("skip_connect", (0, 288), (0, 90112)),
        ("max_pool_3x3", (32, 32), (49152, 24576)),
        ("avg_pool_3x3", (32, 32), (49152, 24576)),
        ("sep_conv_3x3", (864, 864), (917504, 241664)),
        ("sep_conv_5x5", (1376, 1376), (1441792, 372736)),
        ("dil_conv_3x3", (432, 432), (458752, 126976)),
        ("dil_conv_5x5", (688, 688), (720896, 192512)),
    ],
)
def test_operation_has_the_known_costs_at_strides_1_and_2(name, parameters, flops):
    config = darts_candidates()[name]
    operations = [MODELS.build({**config, "in_channels": 16, "out_channels": 16, "stride": s}) for s in (1, 2)]
    costs = [count(operation, IMAGE, convention="mmr") for operation in operations]
    assert tuple(c.params for c in costs) == parameters
    assert tuple(c.macs for c in costs) == flops


@pytest.mark.parametrize("name", darts_candidates())
@pytest.mark.parametrize("size", [7, 8])
def test_stride_2_halves_the_size_rounded_up(name, size):
    config = {**darts_candidates()[name], "in_channels": 16, "out_channels": 16}
    x = torch.ones(2, 16, size, size)
    assert MODELS.build({**config, "stride": 1})(x).shape == x.shape
    assert MODELS.build({**config, "stride": 2})(x).shape == (2, 16, 4, 4)


@pytest.mark.parametrize("name", darts_candidates())
def test_operations_leave_their_input_as_it_was_for_the_others(name):
    config = {**darts_candidates()[name], "in_channels": 16, "out_channels": 16, "stride": 2}
    if "Conv" in config["type"]:
        config["act_cfg"] = {"type": "ReLU", "inplace": True}
    before = X.clone()
    MODELS.build(config)(X)
    assert torch.equal(X, before)


def test_zero_keeps_its_input_in_the_graph():
    x = X.clone().requires_grad_()
    out = DartsZero(16, 16, 2)(x)
    out.sum().backward()
    assert out.abs().sum() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_reduction_reads_all_four_phases_of_the_image():
    operation = DartsSkipConnect(16, 16, 2)
    x = X.clone().requires_grad_()
    operation(x).square().sum().backward()
    read = (x.grad != 0).any(1).any(0)
    assert [bool(read[i::2, j::2].any()) for i in (0, 1) for j in (0, 1)] == [True, False, False, True]


def test_averages_do_not_count_padding():
    pool = DartsPoolBN(16, 16, "avg", norm_cfg=None)
    assert torch.equal(pool(torch.ones(1, 16, 4, 4)), torch.ones(1, 16, 4, 4))


def test_padding_is_never_a_maximum():
    pool = DartsPoolBN(16, 16, "max", norm_cfg=None)
    assert torch.equal(pool(-torch.ones(1, 16, 4, 4)), -torch.ones(1, 16, 4, 4))


@pytest.mark.parametrize("name", ["max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5"])
def test_operations_are_left_out_a_tenth_of_the_time_and_only_in_training(name):
    config = {**darts_candidates(use_drop_path=True)[name], "in_channels": 2, "out_channels": 2}
    operation = MODELS.build(config)
    torch.manual_seed(0)
    x = torch.randn(1000, 2, 2, 2)
    dropped = (operation(x).flatten(1) == 0).all(1).float().mean().item()
    assert dropped == pytest.approx(0.1, abs=0.03)
    assert not (operation.eval()(x).flatten(1) == 0).all(1).any()


def test_plain_input_is_never_left_out():
    operation = DartsSkipConnect(16, 16, use_drop_path=True)
    assert not any(isinstance(module, DropPath) for module in operation.modules())
    assert operation(X) is X


def test_rate_is_set_everywhere_at_once():
    model = nn.Sequential(DartsSepConv(4, 4, 3, use_drop_path=True), DartsSkipConnect(4, 4, 2))
    set_drop_path_rate_(model, 0.3)
    assert [module.rate for module in model.modules() if isinstance(module, DropPath)] == [0.3, 0.3]


@pytest.mark.parametrize("kind", [DartsDilConv, DartsSepConv])
def test_other_kernel_sizes_are_refused(kind):
    with pytest.raises(ChoiceError, match=f"{kind.__name__} has no kernel_size 7; allowed: 3, 5") as error:
        kind(16, 16, 7)
    assert isinstance(error.value, AssertionError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DartsPoolBN(16, 16, "mean"), "no pool_type 'mean'; .*allowed: 'max', 'avg'"),
        (lambda: DartsPoolBN(16, 32, "max"), "out_channels must be 16 as in_channels, got 32"),
        (lambda: DartsZero(16, 32), "DartsZero keeps its channels"),
        (lambda: DartsSkipConnect(16, 32), "DartsSkipConnect keeps its channels"),
        (lambda: DartsSkipConnect(16, 16, 3), "no stride 3; allowed: 1, 2"),
        (lambda: DartsSkipConnect(16, 15, 2), "out_channels must be even, got 15"),
    ],
)
def test_shapes_that_an_operation_cannot_make_are_refused(make, message):
    with pytest.raises(ChoiceError, match=message):
        make()
