import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture
def count_macs() -> Callable[..., int]:
    """Multiply-adds of convolutions and linear layers, counted by torch without computing them."""

    def count(model: nn.Module, *shape: int) -> int:
        model = model.to("meta").eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(shape, device="meta"))
        assert counter.get_total_flops() % 2 == 0
        return counter.get_total_flops() // 2

    return count


@pytest.fixture
def count_parameters() -> Callable[[nn.Module], int]:
    return lambda model: sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def structure() -> Callable[[str], tuple[int, int]]:
    """Parameters and multiply-adds of a published network."""

    def find(name: str) -> tuple[int, int]:
        with (Path(__file__).parents[1] / "data" / "structure.csv").open() as file:
            row = next(row for row in csv.DictReader(file) if row["name"] == name)
        return int(row["params_counted"]), int(row["macs_counted"])

    return find
