import copy
import math

import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import OneShotMutableValue, SequentialMutableChannel
from mutorch.ops import (
    DynamicInputResizer,
    DynamicMultiheadAttention,
    DynamicPatchEmbed,
    DynamicRelativePosition2D,
    InputResizer,
    MultiheadAttention,
    PatchEmbed,
    RelativePosition2D,
    set_execution_,
)
from mutorch.testing import OpSuite


class TestDynamicPatchEmbed(OpSuite):
    dynamic, attrs, tolerance = DynamicPatchEmbed, ("embed_dims",), 1e-5

    def static(self):
        return PatchEmbed(8, 2, 6, 4)

    def inputs(self, active):
        return torch.randn(2, 2, 8, 8)

    def reference(self, static, active, x):
        kept = active["embed_dims"]
        weight, bias = static.projection.weight[kept], static.projection.bias[kept]
        return nn.functional.conv2d(x, weight, bias, stride=4).flatten(2).transpose(1, 2)


def attention(**kwargs):
    torch.manual_seed(0)
    return MultiheadAttention(16, 3, max_relative_position=2, **kwargs)


def test_attention_without_positions_is_that_of_torch():
    plain = attention(relative_position=False)
    x = torch.randn(2, 5, 16)
    q, k, v = (layer(x).view(2, 5, 3, 64).transpose(1, 2) for layer in (plain.w_qs, plain.w_ks, plain.w_vs))
    out = nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(plain(x), plain.proj(out.transpose(1, 2).reshape(2, 5, 192)), atol=1e-6)


def test_positions_count_from_the_query_on_the_grid_of_patches():
    table = RelativePosition2D(4, max_relative_position=1)
    found = table(10, 10)  # a class token and 3 x 3 patches
    assert found.shape == (10, 10, 4)
    v, h = table.embeddings_table_v, table.embeddings_table_h
    assert torch.equal(found[0, 3], v[0] + h[0])
    assert torch.equal(found[1 + 4, 1 + 0], v[1] + h[1])  # from the middle: one up, one left
    assert torch.equal(found[1 + 0, 1 + 7], v[3] + h[3])  # two down counts as one, one right
    assert torch.equal(found[1 + 4, 1 + 4], v[2] + h[2])


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_with_fewer_heads_and_features_is_the_attention_of_its_parts(heads):
    op = DynamicMultiheadAttention.convert_from(attention())
    head_count, width = OneShotMutableValue([1, 2, 3]), SequentialMutableChannel(16)
    op.register_mutable_attr("num_heads", head_count)
    op.register_mutable_attr("in_channels", width)
    op.register_mutable_attr("q_embed_dims", SequentialMutableChannel(64) * head_count)
    head_count.current_choice, width.current_choice = heads, 10
    small = MultiheadAttention(10, heads, max_relative_position=2)
    whole = op.state_dict()
    cut = {name: whole[name][tuple(slice(n) for n in tensor.shape)] for name, tensor in small.state_dict().items()}
    small.load_state_dict(cut)
    x = torch.randn(2, 5, 10)
    assert torch.allclose(op(x), small(x), atol=1e-6)
    copied = copy.deepcopy(op)
    head_count.fix_chosen(heads)
    width.fix_chosen()
    plain = op.to_static_op()
    assert torch.equal(plain(x), op(x))
    assert torch.equal(copied(x), op(x))
    assert {type(module) for module in plain.modules()} == {type(module) for module in small.modules()}
    assert (plain.num_heads, plain.embed_dims, plain.q_embed_dims) == (heads, 10, heads * 64)
    expected = op(x)
    set_execution_(op, "mask")
    padded = op(torch.cat([x, torch.zeros(2, 5, 6)], -1))
    assert torch.allclose(padded[..., :10], expected, atol=1e-5)
    assert not padded[..., 10:].any()


def test_relative_positions_follow_the_features_of_a_head():
    op, width = DynamicRelativePosition2D(8, 2), SequentialMutableChannel(8)
    op.register_mutable_attr("head_dims", width)
    width.current_choice = 5
    assert op(5, 5).shape == (5, 5, 5)
    again = SequentialMutableChannel(8)
    op.register_mutable_attr("head_dims", again)
    assert op(5, 5).shape == (5, 5, 8)


def test_inputs_are_resized_to_the_shape_of_the_mutable():
    op, shape = DynamicInputResizer(), OneShotMutableValue([[8, 8], [12, 10]])
    x = torch.randn(1, 2, 9, 9)
    assert torch.equal(op(x), x)
    op.register_mutable_attr("shape", shape)
    shape.current_choice = [8, 8]
    expected = nn.functional.interpolate(x, (8, 8), mode="bicubic", align_corners=False)
    assert torch.equal(op(x), expected)
    shape.fix_chosen([8, 8])
    plain = op.to_static_op()
    assert type(plain) is InputResizer
    assert torch.equal(plain(x), expected)
    for wrong in ([], [1, 2, 3, 4]):
        with pytest.raises(ChoiceError, match="one to three sizes"):
            DynamicInputResizer().register_mutable_attr("shape", OneShotMutableValue([wrong]))
    assert math.prod(plain.size) == 64
