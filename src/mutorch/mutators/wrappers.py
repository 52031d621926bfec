"""The model inside what wraps it."""

from torch import nn

WRAPPERS = ("torch.nn.parallel", "torch.optim.swa_utils", "torch._dynamo", "lightning.fabric", "lightning_fabric")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel, AveragedModel, a compiled model or Fabric's wrapper."""
    while type(model).__module__.startswith(WRAPPERS):
        inner = getattr(model, "_orig_mod", getattr(model, "module", None))
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model
