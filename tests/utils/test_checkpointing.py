import copy

import pytest
import torch

from mutorch.models import MBBlock, ShuffleBlock, ShuffleXception

BLOCKS = [
    ShuffleBlock(16, 16, 5),
    ShuffleBlock(16, 32, 3, stride=2),
    ShuffleXception(16, 16),
    MBBlock(16, 16, 3, 6, se_cfg={"ratio": 4}, drop_path_rate=0.5),
]
X = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def trained_once(block):
    """Everything that a training step leaves behind: output, gradients, statistics."""
    torch.manual_seed(1)
    x = X.clone().requires_grad_()
    out = block(x)
    out.square().sum().backward()
    return [out, x.grad, *(p.grad for p in block.parameters()), *block.buffers()]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_checkpoints_change_nothing_but_memory(block):
    plain, saving = copy.deepcopy(block), copy.deepcopy(block)
    saving.with_cp = True
    for expected, found in zip(trained_once(plain), trained_once(saving), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert [m.momentum for m in saving.modules() if isinstance(m, torch.nn.BatchNorm2d)] == [
        m.momentum for m in plain.modules() if isinstance(m, torch.nn.BatchNorm2d)
    ]


def test_checkpointed_block_computes_its_inside_twice():
    block = ShuffleBlock(16, 16, 3, with_cp=True)
    calls = []
    block.branch2[0].register_forward_hook(lambda *_: calls.append(1))
    block(X).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        block(X)
    assert len(calls) == 3
