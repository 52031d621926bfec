"""The candidate that leaves a block out."""

from torch import Tensor, nn

from .conv_norm_act import BATCH_NORM, Config, conv_norm_act


class Identity(nn.Module):
    """Its input; where the shape must change, a 1x1 convolution and norm (`downsample`).

    Configs get this one by the name 'Identity', as a candidate takes channels and stride; torch's is 'nn.Identity'.

    Example:
        >>> Identity(32, 32), sum(p.numel() for p in Identity(32, 56, stride=2).parameters())
        (Identity(), 1904)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        conv_cfg: Config | None = None,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config | None = None,
    ) -> None:
        super().__init__()
        self.downsample = (
            None
            if stride == 1 and in_channels == out_channels
            else conv_norm_act(
                in_channels, out_channels, 1, stride, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is None:
            return x
        out: Tensor = self.downsample(x)
        return out
