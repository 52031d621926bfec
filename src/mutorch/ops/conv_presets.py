"""Convolutions with a kernel rule, under the names that the field knows."""

from __future__ import annotations

from .conv import DynamicConv2d
from .kernel import CenterCrop, LearnedTransform


class BigNasConv2d(DynamicConv2d):
    """`DynamicConv2d(..., kernel=CenterCrop())`: smaller kernels are the middle of the largest."""

    kernel_rule = CenterCrop


class OFAConv2d(DynamicConv2d):
    """`DynamicConv2d(..., kernel=LearnedTransform())`: smaller kernels go through learned matrices."""

    kernel_rule = LearnedTransform
