import pytest
import torch
from torch import nn

from mutorch.models import MBBlock, PooledShortcut


def test_the_input_passes_where_the_shape_stays():
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(PooledShortcut(8, 8)(x), x)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 8), (7, 5)])
def test_the_shortcut_has_the_size_of_a_strided_block(height, width):
    x = torch.randn(1, 8, height, width)
    block = MBBlock(8, 12, 3, 2, stride=2, with_attentive_shortcut=True)
    assert block.shortcut(x).shape == block.depthwise_conv(block.expand_conv(x))[:, :12].shape


def test_an_odd_side_is_padded_with_zeros_at_both_ends():
    pooled = PooledShortcut(1, 1, stride=2)(torch.ones(1, 1, 3, 4))
    assert pooled[0, 0].tolist() == [[0.5, 0.5], [1.0, 1.0]]


def test_the_block_adds_its_shortcut():
    block = MBBlock(8, 12, 3, 2, stride=2, with_attentive_shortcut=True).eval()
    nn.init.zeros_(block.linear_conv.bn.weight)
    x = torch.randn(1, 8, 6, 6)
    assert torch.equal(block(x), block.shortcut(x))
    assert [name for name, _ in block.shortcut.named_parameters()] == ["project.0.weight"]
