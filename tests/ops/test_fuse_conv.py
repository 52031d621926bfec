import copy

import pytest
import torch
import torch.nn.functional as F

from mutorch.errors import StateError
from mutorch.mutables import SequentialMutableChannel
from mutorch.ops import FuseConv2d, set_execution_

X = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))


def fuse(groups=1, bias=True):
    torch.manual_seed(0)
    conv = FuseConv2d(6, 8 if groups == 1 else 6, 3, groups=groups, bias=bias)
    inputs, outputs = SequentialMutableChannel(6), SequentialMutableChannel(conv.out_channels)
    conv.register_mutable_attr("in_channels", inputs)
    conv.register_mutable_attr("out_channels", inputs if groups > 1 else outputs)
    return conv, inputs, outputs


def test_filters_are_mixtures_of_all_filters():
    conv, inputs, outputs = fuse()
    inputs.current_choice, outputs.current_choice = 4, 3
    matrix = torch.rand(3, 8)
    conv.set_forward_args(matrix)
    state = conv.state_dict()
    weight = (matrix @ state["weight"][:, :4].flatten(1)).view(3, 4, 3, 3)
    expected = F.conv2d(X[:, :4], weight, matrix @ state["bias"])
    assert torch.allclose(conv(X[:, :4]), expected, atol=1e-6)
    inputs.fix_chosen()
    outputs.fix_chosen()
    plain = conv.to_static_op()
    assert torch.equal(plain(X[:, :4]), conv(X[:, :4]))
    assert set(plain.__dict__) == set(torch.nn.Conv2d(1, 1, 1).__dict__)


def test_a_depthwise_convolution_is_fused_too():
    conv, width, _ = fuse(groups=6, bias=False)
    width.current_choice = 2
    matrix = torch.rand(2, 6)
    conv.set_forward_args(matrix)
    weight = (matrix @ conv.state_dict()["weight"].flatten(1)).view(2, 1, 3, 3)
    assert torch.allclose(conv(X[:, :2]), F.conv2d(X[:, :2], weight, groups=2), atol=1e-6)
    with pytest.raises(NotImplementedError, match="in 3 groups cannot be fused"):
        FuseConv2d(6, 6, 3, groups=3).register_mutable_attr("out_channels", SequentialMutableChannel(6))


def test_mask_mode_computes_the_same_numbers():
    conv, inputs, outputs = fuse()
    inputs.current_choice, outputs.current_choice = 4, 3
    conv.set_forward_args(conv.get_pooled_channel(1.0))
    sliced = conv(X[:, :4])
    set_execution_(conv, "mask")
    masked = conv(torch.cat([X[:, :4], torch.zeros(2, 2, 5, 5)], 1))
    assert torch.allclose(masked[:, :3], sliced, atol=1e-6)
    assert not masked[:, 3:].any()


def test_without_a_matrix_or_at_full_width_filters_stay():
    conv, _, outputs = fuse()
    plain = copy.deepcopy(conv.state_dict()["weight"])
    conv.set_forward_args(torch.rand(8, 8))
    assert torch.equal(conv.weight, plain)
    conv.set_forward_args(None)
    outputs.current_choice = 3
    assert torch.equal(conv.weight, plain[:3])


def test_pooled_channels_are_likenesses_of_the_least_alike_filters():
    conv, _, outputs = fuse()
    outputs.current_choice = 3
    weight = conv.state_dict()["weight"].flatten(1)
    distance = (weight[:, None] - weight[None]).square().sum(-1).sqrt()
    alike = torch.softmax(-distance / 0.1, dim=1)
    logs = torch.log(alike + 1e-7)
    scores = [sum(float(alike[c, j]) * float(logs[c, j] - logs[j].mean()) for j in range(8)) / 8 for c in range(8)]
    best = sorted(range(8), key=scores.__getitem__)[-3:]
    found = conv.get_pooled_channel(0.1)
    assert found.shape == (3, 8)
    assert all(any(torch.allclose(row, alike[c], atol=1e-5) for row in found) for c in best)


def test_a_matrix_of_another_width_is_an_error():
    conv, _, outputs = fuse()
    outputs.current_choice = 3
    conv.set_forward_args(conv.get_pooled_channel(1.0))
    outputs.current_choice = 4
    with pytest.raises(StateError, match=r"compute it again after each choice"):
        conv(X)
