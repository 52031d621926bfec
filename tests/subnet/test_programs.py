import subprocess
import sys

import pytest
import torch
from torch import nn

from mutorch import export, save_program, to_onnx
from mutorch.errors import ExportError
from mutorch.mutables import MutableValue, OneShotMutableOP
from mutorch.subnet import programs

WITHOUT_MUTORCH = """
import sys
sys.modules['mutorch'] = None
import torch
path, inputs, expected = sys.argv[1:]
program = torch.export.load(path).module()
for x, wanted in zip(torch.load(inputs), torch.load(expected), strict=True):
    assert torch.equal(program(x), wanted)
print('equal')
"""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = OneShotMutableOP({"conv": nn.Conv2d(2, 2, 3, padding=1), "skip": nn.Identity()})
        self.depth = MutableValue([1, 2])
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        for _ in range(self.depth.current_choice):
            x = self.norm(self.op(x)).relu()
        return x.mean((2, 3))


def subnet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return export(Net(), {"op": "conv", "depth": 2})


def image(batch):
    return torch.randn(batch, 2, 5, 5, generator=torch.Generator().manual_seed(batch))


def test_a_program_runs_at_any_batch_size_where_mutorch_is_not_installed(tmp_path):
    net = subnet()
    path = save_program(net, tmp_path / "new" / "net.pt2", image(2))
    assert net.training
    net.eval()
    batches = [image(n) for n in (2, 5)]
    torch.save(batches, tmp_path / "inputs.pt")
    with torch.no_grad():
        torch.save([net(x) for x in batches], tmp_path / "expected.pt")
    arguments = [path, tmp_path / "inputs.pt", tmp_path / "expected.pt"]
    other = subprocess.run(
        [sys.executable, "-c", WITHOUT_MUTORCH, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert other.stdout == "equal\n", other.stderr


class FixedBatch(nn.Module):
    def forward(self, x, scale):
        return x.reshape(2, -1) * scale


def test_a_model_that_ties_its_batch_keeps_that_of_the_example(tmp_path):
    path = save_program(FixedBatch(), tmp_path / "net.pt2", (torch.ones(2, 3), torch.tensor(2.0)))
    program = torch.export.load(path).module()
    assert torch.equal(program(torch.ones(2, 3), torch.tensor(3.0)), torch.full((2, 3), 3.0))


def test_programs_have_their_suffix_and_take_tensors(tmp_path):
    with pytest.raises(ExportError, match="a program is saved as .pt2, got 'net.pt'"):
        save_program(nn.Identity(), tmp_path / "net.pt", torch.ones(1))
    for write in (save_program, to_onnx):
        with pytest.raises(TypeError, match="example_inputs must be a tensor or a tuple here, got dict"):
            write(nn.Identity(), tmp_path / "net.pt2", {"x": torch.ones(1)})


def onnx_available():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside torch and onnxscript
def test_an_onnx_file_computes_what_the_subnet_computes(tmp_path, monkeypatch):
    onnx_available()
    net = subnet()
    path = to_onnx(net, tmp_path / "net.onnx", image(2))
    assert path.stat().st_size > 0
    assert net.training
    expected = net.eval()(image(2)).detach()
    programs._check_onnx(path, (image(2),), [expected])
    programs._check_onnx(path, (image(7),), [net(image(7)).detach()])  # the batch is free
    with pytest.raises(ExportError, match="output 0 of .* in onnxruntime is off by"):
        programs._check_onnx(path, (image(2),), [expected + 1])


def test_an_onnx_file_of_a_model_that_ties_its_batch_keeps_that_of_the_example(tmp_path):
    onnx_available()
    args = (torch.ones(2, 3), torch.tensor(2.0))
    path = to_onnx(FixedBatch(), tmp_path / "net.onnx", args)
    programs._check_onnx(path, args, [torch.full((2, 3), 2.0)])
