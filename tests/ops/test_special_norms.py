import copy

import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import OneShotMutableChannel, SequentialMutableChannel
from mutorch.ops import DMCPBatchNorm2d, SwitchableBatchNorm2d, set_execution_

X = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(0))


def switchable():
    norm, width = SwitchableBatchNorm2d(8), OneShotMutableChannel(8, [2, 4, 8])
    with torch.no_grad():
        norm.weight.copy_(torch.arange(8))
    norm.init_candidates([2, 4, 8])
    norm.register_mutable_attr("num_features", width)
    return norm, width


def test_every_width_has_its_own_norm():
    norm, width = switchable()
    for count in (2, 4, 8):
        width.current_choice = count
        norm(X[:, :count])
        own = norm if count == 8 else norm.candidate_bn[str(count)]
        plain = nn.BatchNorm2d(count)
        plain(X[:, :count])
        assert torch.equal(own._buffers["running_mean"], plain.running_mean)
        assert int(own._buffers["num_batches_tracked"]) == 1
        assert torch.equal(own._parameters["weight"], torch.arange(count).float())


def test_the_static_op_is_the_norm_of_the_width():
    norm, width = switchable()
    width.current_choice = 4
    norm(X[:, :4])
    copied = copy.deepcopy(norm)
    width.fix_chosen(4)
    plain = norm.eval().to_static_op()
    assert type(plain) is nn.BatchNorm2d
    assert list(plain.state_dict()) == list(nn.BatchNorm2d(4).state_dict())
    assert torch.equal(plain(X[:, :4]), norm(X[:, :4]))
    assert torch.equal(copied.eval()(X[:, :4]), norm(X[:, :4]))


def test_widths_that_cannot_be_are_refused():
    norm, _ = switchable()
    with pytest.raises(AssertionError, match="already"):
        norm.init_candidates([2])
    for width in (0, 9, 2.0):
        with pytest.raises(ChoiceError, match="an int from 1 to 8"):
            SwitchableBatchNorm2d(8).init_candidates([width])
    any_width = SequentialMutableChannel(8)
    norm.register_mutable_attr("num_features", any_width)
    any_width.current_choice = 3
    with pytest.raises(AssertionError, match="no norm for 3 features; allowed: 2, 4, 8|no norm for 3"):
        norm(X[:, :3])
    any_width.current_choice = 2
    set_execution_(norm, "mask")
    with pytest.raises(RuntimeError, match="slice mode only"):
        norm(X)


def test_probabilities_scale_the_output_only_while_they_are_given():
    norm, width = DMCPBatchNorm2d(8).eval(), SequentialMutableChannel(8)
    norm.register_mutable_attr("num_features", width)
    parameter = torch.tensor([0.5, -1.0, 0.25], requires_grad=True)  # 2 channels stay, 3 groups of 2
    width.current_choice = 6
    plain = norm(X[:, :6])
    norm.set_forward_args(parameter, (2, 3, 2))
    scaled = norm(X[:, :6])
    first = torch.exp(torch.tensor(-0.5))
    expected = torch.stack([torch.ones(()), torch.ones(()), first, first, first, first]).view(1, -1, 1, 1)
    assert torch.allclose(scaled, plain * expected)
    scaled.sum().backward()
    assert parameter.grad is not None
    assert "arch_param" not in dict(norm.named_parameters())
    norm.set_forward_args(None, None)
    assert torch.equal(norm(X[:, :6]), plain)
    assert torch.equal(norm(X[:, :6], parameter, (2, 3, 2)), scaled)
    width.fix_chosen()
    assert type(norm.to_static_op()) is nn.BatchNorm2d
