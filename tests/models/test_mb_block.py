import pytest
import torch

from mutorch.errors import ChoiceError
from mutorch.models import MBBlock

X = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("arguments", "kept", "strided"),
    [
        ({"kernel_size": 3, "expand_ratio": 1}, 1440, 2256),
        ({"kernel_size": 3, "expand_ratio": 6}, 14848, 19504),
        ({"kernel_size": 5, "expand_ratio": 3}, 8992, 11344),
        ({"kernel_size": 3, "expand_ratio": 4, "se_cfg": {"ratio": 4}}, 18272, 21392),
    ],
)
def test_mb_block_has_the_known_size(arguments, kept, strided, count_parameters):
    assert count_parameters(MBBlock(32, 32, **arguments)) == kept
    assert count_parameters(MBBlock(32, 56, stride=2, **arguments)) == strided


def test_input_is_added_only_where_the_shape_stays():
    block = MBBlock(16, 16, 3, 6).eval()
    inner = block.linear_conv(block.depthwise_conv(block.expand_conv(X)))
    assert torch.equal(block(X), X + inner)
    assert MBBlock(16, 16, 3, 6, stride=2)(X).shape == (4, 16, 4, 4)
    assert not MBBlock(16, 24, 3, 6).with_res_shortcut


def test_expansion_1_has_no_first_convolution():
    assert MBBlock(16, 16, 3, 1).expand_conv is None


def test_dropped_path_leaves_the_input():
    block = MBBlock(16, 16, 3, 6, drop_path_rate=0.5)
    torch.manual_seed(0)
    kept = [not torch.equal(out, x) for out, x in zip(block(X), X, strict=True)]
    assert sorted(set(kept)) == [False, True]
    block.drop_path_rate = 0.0
    assert all(not torch.equal(out, x) for out, x in zip(block(X), X, strict=True))


def test_drop_path_rate_must_be_a_float():
    block = MBBlock(16, 16, 3, 6)
    with pytest.raises(TypeError, match="must be a float, got 1"):
        block.drop_path_rate = 1
    assert block.drop_path_rate == 0.0


def test_drop_path_rate_must_be_below_1():
    with pytest.raises(ChoiceError, match="below 1, got 1.0"):
        MBBlock(16, 16, 3, 6, drop_path_rate=1.0)


def test_other_strides_are_refused():
    with pytest.raises(ChoiceError, match="MBBlock has no stride 3; allowed: 1, 2"):
        MBBlock(16, 16, 3, 6, stride=3)
