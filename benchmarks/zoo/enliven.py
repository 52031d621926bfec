"""Untrained models that let a signal through, so that equal outputs mean something.

Fresh from the constructor many models return a constant, or nearly: heads, residual branches and layer scales start at zero,
and batch norms do not normalise before training. What is cut wrongly then changes nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SMALL = 0.05


@torch.no_grad()
def enliven_(model: nn.Module, run: Callable[[nn.Module], object]) -> nn.Module:
    """The model, in eval mode, with random values for what was constant, and with batch statistics that fit its inputs.

    A parameter of equal elements is spread by 20%, or drawn from -0.3 to 0.3 if it was next to zero; the statistics are
    those of one run, with a variance that is random by channel.
    """
    rng = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.is_floating_point() or parameter.min() != parameter.max():
            continue
        value = float(parameter.flatten()[0])
        spread = torch.rand(parameter.shape, generator=rng) * 2 - 1
        if abs(value) < SMALL:
            parameter.copy_(0.3 * spread)
        elif parameter.numel() > 1:
            parameter.copy_(value * (1 + 0.2 * spread))

    def fit(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        if norm.running_mean is None or norm.running_var is None:
            return
        x = inputs[0].detach()
        norm.running_mean.copy_(x.mean(dim=[dim for dim in range(x.dim()) if dim != 1]))
        if x.numel() == norm.num_features:  # one value a channel: all would be zero
            norm.running_mean.mul_(0.5)
        spread = torch.rand(norm.running_var.shape, generator=rng)
        norm.running_var.copy_((x - norm.running_mean.view(-1, *[1] * (x.dim() - 2))).square().mean() * (0.5 + spread))

    hooks = [module.register_forward_pre_hook(fit) for module in model.modules() if isinstance(module, _BatchNorm)]
    model.eval()
    run(model)
    for hook in hooks:
        hook.remove()
    return model
