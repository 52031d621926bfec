"""Convolutions whose channels, and kernel sizes, are decided by mutables."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from mutorch.errors import ChoiceError

from .dynamic import DynamicState, FollowedSize
from .extent import Extent
from .grouped import FollowedGroups, GroupedWeight
from .kernel import FollowedKernel, KernelRule, check_kernel_sizes, kernel_sizes
from .op import Attr, DynamicOp, UnsupportedAttrError


class DynamicConvOp(DynamicOp):
    """What all convolutions share. Their channels are `in_channels` and `out_channels`.

    A convolution in groups keeps equally many channels in each group that it keeps; a depthwise one keeps any.

    Args:
        args, kwargs: those of the torch class.
        kernel: how it computes with smaller kernels, `CenterCrop()` or `LearnedTransform()`: then `kernel_size` can be
            decided too. Half of what the kernel loses is taken from the padding on each side, so that the output keeps its
            size; a convolution whose padding is too small for that pads by half the kernel once a size is registered.
    """

    attrs = {
        "in_channels": Attr((), "in_channels"),
        "out_channels": Attr((("weight", 0), ("bias", 0)), "out_channels"),
        "kernel_size": Attr((), "kernel_size", channels=False),
    }
    followed = ("groups", "padding")
    kernel_rule: ClassVar[type[KernelRule] | None] = None
    kernel: KernelRule | None
    kernel_size_list: list[int]

    def __init__(self, *args: Any, kernel: KernelRule | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if kernel is not None:
            self.kernel = kernel

    def _begin(self) -> None:
        super()._begin()
        self.kernel = None if self.kernel_rule is None else self.kernel_rule()

    @property
    def mutable_in_channels(self) -> Any:
        """The mutable of `in_channels`."""
        return self.get_mutable_attr("in_channels")

    @property
    def mutable_out_channels(self) -> Any:
        """The mutable of `out_channels`."""
        return self.get_mutable_attr("out_channels")

    def whole_size(self, attr: str) -> int:
        return int(self.__dict__[attr])

    def check_mutable_attr(self, name: str, mutable: Any) -> None:
        super().check_mutable_attr(name, mutable)
        if name != "kernel_size":
            return
        if self.kernel is None or self.__dict__["transposed"]:
            raise UnsupportedAttrError(
                f"this {type(self).__name__} has no rule for smaller kernels; make it with kernel=CenterCrop() or "
                "kernel=LearnedTransform()"
            )
        if self.__dict__["padding_mode"] != "zeros":
            raise ChoiceError(
                f"a kernel size needs padding_mode 'zeros', not {self.__dict__['padding_mode']!r}: fewer zeros around a "
                "smaller kernel keep the output's size"
            )
        check_kernel_sizes(mutable, self.__dict__["kernel_size"])
        self.kernel_size_list = kernel_sizes(mutable)
        self.kernel.prepare(self, self.kernel_size_list)
        self._pad_for_kernels()

    def _pad_for_kernels(self) -> None:
        sizes, dilation, padding = self.kernel_size_list, self.__dict__["dilation"], self.__dict__["padding"]
        if isinstance(padding, str):
            return  # 'same' follows by itself
        if any(pad < (sizes[-1] - sizes[0]) // 2 * by for pad, by in zip(padding, dilation, strict=True)):
            self.__dict__["padding"] = tuple(sizes[-1] // 2 * by for by in dilation)

    def describe(self, state: DynamicState) -> None:
        inputs, outputs = self.extent("in_channels"), self.extent("out_channels")
        for name, extent in (("in_channels", inputs), ("out_channels", outputs)):
            if extent is not None:
                state.sizes[name] = (FollowedSize((extent,)),)
        if outputs is not None:
            state.tensors["bias"] = ((0, outputs),)
        rows, columns = (inputs, outputs) if self.__dict__["transposed"] else (outputs, inputs)
        self._describe_weight(state, rows, columns)
        value = self.get_mutable_attr("kernel_size")
        if value is not None and self.kernel is not None:
            self.kernel.describe(self, state, value)
            self._describe_kernel(state, value)

    def _describe_weight(self, state: DynamicState, rows: Extent | None, columns: Extent | None) -> None:
        groups = self.__dict__["groups"]
        if rows is not None or columns is not None:
            state.tensors["weight"] = () if rows is None else ((0, rows),)
        if groups == 1:
            if columns is not None:
                state.tensors["weight"] = (*state.tensors["weight"], (1, columns))
        elif "weight" in state.tensors:
            counts = self.__dict__["in_channels"], self.__dict__["out_channels"]
            of_rows, of_columns = counts if self.__dict__["transposed"] else counts[::-1]
            weight = GroupedWeight(groups, of_rows, of_columns, rows, columns)
            state.rules["weight"] = weight
            state.sizes["groups"] = (FollowedGroups((), weight=weight),)

    def _describe_kernel(self, state: DynamicState, value: Any) -> None:
        largest, dims = self.kernel_size_list[-1], range(len(self.__dict__["kernel_size"]))
        state.sizes["kernel_size"] = tuple(
            FollowedKernel((), index=dim, mutable=value, whole=largest, per=2, largest=largest) for dim in dims
        )
        padding = self.__dict__["padding"]
        if not isinstance(padding, str):
            state.sizes["padding"] = tuple(
                FollowedKernel(
                    (),
                    index=dim,
                    mutable=value,
                    whole=padding[dim],
                    per=self.__dict__["dilation"][dim],
                    largest=largest,
                )
                for dim in dims
            )

    def extras(self) -> tuple[str, ...]:
        learned = self.kernel.parameters_of(self) if self.kernel is not None else ()
        return (*super().extras(), "kernel", "kernel_size_list", *learned)


class DynamicConv1d(DynamicConvOp, nn.Conv1d):
    """An `nn.Conv1d` whose `in_channels`, `out_channels` and `kernel_size` can be decided; see `DynamicConv2d`."""

    static_class = nn.Conv1d


class DynamicConv2d(DynamicConvOp, nn.Conv2d):
    """An `nn.Conv2d` whose `in_channels`, `out_channels` and `kernel_size` can be decided; see `DynamicConvOp`.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableChannel, OneShotMutableValue
        >>> from mutorch.ops import CenterCrop
        >>> conv = DynamicConv2d(3, 16, 5, padding=2, kernel=CenterCrop())
        >>> width, kernel_size = OneShotMutableChannel(16, [8, 16]), OneShotMutableValue([3, 5])
        >>> conv.register_mutable_attr("out_channels", width)
        >>> conv.register_mutable_attr("kernel_size", kernel_size)
        >>> width.current_choice, kernel_size.current_choice = 8, 3
        >>> conv.weight.shape, conv(torch.zeros(1, 3, 9, 9)).shape, conv.state_dict()["weight"].shape
        (torch.Size([8, 3, 3, 3]), torch.Size([1, 8, 9, 9]), torch.Size([16, 3, 5, 5]))
        >>> width.fix_chosen(), kernel_size.fix_chosen(3)
        (None, None)
        >>> conv.to_static_op()
        Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """

    static_class = nn.Conv2d


class DynamicConv3d(DynamicConvOp, nn.Conv3d):
    """An `nn.Conv3d` whose `in_channels`, `out_channels` and `kernel_size` can be decided; see `DynamicConv2d`."""

    static_class = nn.Conv3d


class DynamicConvTranspose1d(DynamicConvOp, nn.ConvTranspose1d):
    """An `nn.ConvTranspose1d` whose `in_channels` and `out_channels` can be decided."""

    static_class = nn.ConvTranspose1d


class DynamicConvTranspose2d(DynamicConvOp, nn.ConvTranspose2d):
    """An `nn.ConvTranspose2d` whose `in_channels` and `out_channels` can be decided."""

    static_class = nn.ConvTranspose2d


class DynamicConvTranspose3d(DynamicConvOp, nn.ConvTranspose3d):
    """An `nn.ConvTranspose3d` whose `in_channels` and `out_channels` can be decided."""

    static_class = nn.ConvTranspose3d
