"""What every recipe ends with: files of the winner; and how a folder stays with one run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ResumeError
from mutorch.subnet import save, save_program
from mutorch.utils import differences, whole_file

from .progress import Progress


@dataclass(frozen=True, slots=True)
class Winner:
    """The winner of a run, and its files.

    Attributes:
        subnet: a plain model.
        subnet_file: its weights and record.
        program_file: of `torch.export`.
        example_inputs: what the program was exported with, a batch of two.
    """

    subnet: nn.Module
    subnet_file: Path
    program_file: Path
    example_inputs: Tensor


def export_winner(
    subnet: nn.Module, metrics: Mapping[str, float], example_inputs: Tensor, folder: Path, progress: Progress
) -> Winner:
    """Write `subnet.safetensors` and `subnet.pt2` into the folder of a run."""
    progress("exporting the winner", 0, 1, "")
    file = save(subnet, folder / "subnet.safetensors", metrics=dict(metrics))
    two = torch.cat([example_inputs] * 2)  # a batch of one would be taken for a constant
    program = save_program(subnet, folder / "subnet.pt2", two)
    progress("exporting the winner", 1, 1, "")
    return Winner(subnet, file, program, two)


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """One folder, one run: write `settings.json`.

    Errors:
        ResumeError: the folder belongs to a run with other settings; says in what they differ.
    """
    path = folder / "settings.json"
    mine = json.loads(json.dumps(settings))
    if not path.exists():
        write_json(path, mine)
        return
    different = differences(json.loads(path.read_text(encoding="utf-8")), mine)
    if different:
        raise ResumeError(f"{folder} holds a run with other settings ({different}); delete it, or give another")


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
