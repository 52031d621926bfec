"""The proof that an exported file needs nothing of mutorch."""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from mutorch.errors import ExportError
from mutorch.utils import evaluating, tensors_in

_SCRIPT = """
import sys
sys.modules["mutorch"] = None  # importing it is an error from here on
import torch
program, inputs, outputs = sys.argv[1:]
with torch.no_grad():
    result = torch.export.load(program).module()(torch.load(inputs, weights_only=True))
assert not [name for name in sys.modules if name.startswith("mutorch.")]
torch.save(result, outputs)
"""
TOLERANCE = 1e-5


def check_program(program: Path, model: nn.Module, inputs: Tensor) -> float:
    """Run a `torch.export` program in a process that cannot import mutorch; the largest difference to `model`.

    Errors:
        ExportError: it does not load there, or its outputs differ by more than 1e-5 of the largest.
    """
    with evaluating(model), torch.no_grad():
        expected = model(inputs)
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "inputs.pt", Path(folder) / "outputs.pt"
        torch.save(inputs, given)
        # -P: the current folder is not searched for modules either.
        command = [sys.executable, "-P", "-W", "ignore", "-c", _SCRIPT, str(program), str(given), str(found)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise ExportError(f"{program} does not run without mutorch:\n{finished.stderr[-2000:]}")
        pairs = list(zip(tensors_in(torch.load(found, weights_only=True)), tensors_in(expected), strict=True))
    differences = [float((one - other).abs().max()) for one, other in pairs]
    for difference, (_, other) in zip(differences, pairs, strict=True):
        if difference > TOLERANCE * max(1.0, float(other.abs().max())):
            raise ExportError(f"{program} computes something else: outputs differ by {difference:.3g}")
    return max(differences)
