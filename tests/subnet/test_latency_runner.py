import copy

import pytest
import torch
from torch import nn

from mutorch import LatencyRunner
from mutorch.cost import Measured
from mutorch.cost import latency as timing
from mutorch.errors import ConfigError, MeasureError
from mutorch.subnet import latency

X = torch.zeros(1, 2)


def parameters(model, inputs):
    """A board that takes a millisecond for each parameter."""
    return float(sum(parameter.numel() for parameter in model.parameters()))


class Seen(nn.Module):
    """A model that notes what it is called with."""

    def __init__(self, notes):
        super().__init__()
        self.weight, self.notes = nn.Parameter(torch.ones(1)), notes

    def __deepcopy__(self, memo):
        copied = Seen(self.notes)
        copied.weight = copy.deepcopy(self.weight, memo)
        return copied

    def forward(self, x, *others):
        self.notes.append((x.dtype, tuple(x.shape), self.weight.dtype, self.training, torch.get_num_threads()))
        return x * self.weight


@pytest.fixture
def clock(monkeypatch):
    """A clock that says that a forward takes two milliseconds, whatever it does."""
    now = iter(range(10**6))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 0.002 * next(now))


@pytest.mark.usefixtures("clock")
def test_a_forward_is_timed_in_evaluation_mode_and_the_model_stays_as_it_was():
    notes = []
    model = Seen(notes)
    measured = LatencyRunner(threads=1, repeats=4, warmup=1)(model, X)
    assert measured == Measured.of([2.0] * 4, runtime="eager", device="cpu", dtype="fp32", threads=1, batch=1)
    assert notes == [(torch.float32, (1, 2), torch.float32, False, 1)] * 5
    assert model.training


@pytest.mark.usefixtures("clock")
def test_threads_dtype_and_batch_are_those_asked_for_and_the_threads_come_back():
    notes, before = [], torch.get_num_threads()
    measured = LatencyRunner(dtype="bf16", threads=2, batch=3, repeats=1, warmup=0)(Seen(notes), (X, torch.ones(1, 4)))
    assert notes == [(torch.bfloat16, (3, 2), torch.bfloat16, False, 2)]
    assert (measured.dtype, measured.threads, measured.batch) == ("bf16", 2, 3)
    assert torch.get_num_threads() == before


def test_what_is_no_floating_tensor_keeps_its_type():
    notes = []
    LatencyRunner(lambda model, inputs: notes.append(inputs) or 1.0, batch=2)(
        nn.Identity(), {"ids": torch.tensor([[1, 2]])}
    )
    assert notes[0]["ids"].tolist() == [[1, 2], [1, 2]]
    index = LatencyRunner(dtype="fp16")._inputs((torch.tensor([1]), torch.ones(1)))
    assert [tensor.dtype for tensor in index] == [torch.int64, torch.float16]


def test_a_function_measures_by_itself_and_may_return_one_time_or_several():
    measured = LatencyRunner(parameters, device="phone")(nn.Linear(2, 3), X)
    assert (measured.median_ms, measured.repeats, measured.runtime, measured.device) == (9.0, 1, "parameters", "phone")
    several = LatencyRunner(lambda model, inputs: torch.tensor([2.0, 2.0, 2.1]), repeats=2)(nn.Linear(2, 3), X)
    assert (several.repeats, several.high_ms) == (6, pytest.approx(2.1, rel=0.05))


def test_a_function_gets_the_model_in_evaluation_mode():
    modes = []
    model = nn.Linear(2, 2)
    LatencyRunner(lambda subnet, inputs: modes.append((subnet is model, subnet.training)) or 1.0)(model, X)
    assert modes == [(True, False)]
    assert model.training


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "board returned nothing; return the milliseconds of one forward"),
        ([], "board returned an empty list"),
        ("fast", "board returned 'fast'; return milliseconds"),
        (True, "board returned True"),
        (0.0, "board measured 0.0 ms; a latency is a positive number"),
        (-1, "board measured -1.0 ms"),
        (float("nan"), "board measured nan ms"),
        ([1.0, float("inf")], "board measured inf ms"),
    ],
)
def test_a_function_that_measures_nothing_is_named_and_no_zero_is_recorded(result, message):
    def board(model, inputs):
        return result

    board.__qualname__ = "board"
    with pytest.raises(MeasureError, match=message):
        LatencyRunner(board)(nn.Identity(), X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"runtime": "onnxruntimes"},
            "no runtime 'onnxruntimes'; did you mean 'onnxruntime'\\? allowed: 'eager', 'compile', ",
        ),
        ({"runtime": 3}, "a runtime is a name or a function of \\(model, inputs\\), got 3"),
        ({"dtype": "fp8"}, "no dtype 'fp8'; did you mean 'fp"),
        ({"device": "gpu"}, "no device 'gpu'; .*allowed: 'cpu', 'cuda'"),
        ({"repeats": 0}, "repeats must be a whole number from 1 on, got 0"),
        ({"warmup": -1}, "warmup must be a whole number from 0 on, got -1"),
        ({"threads": 1.5}, "threads must be a whole number from 1 on, got 1.5"),
        ({"batch": True}, "batch must be a whole number from 1 on, got True"),
        ({"runtime": parameters, "dtype": "fp16"}, "parameters measures by itself: dtype has no effect on it"),
        ({"runtime": parameters, "threads": 2}, "parameters measures by itself: threads has no effect"),
        ({"runtime": "onnxruntime", "dtype": "bf16"}, "onnxruntime is measured on the CPU in fp32 or fp16"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        LatencyRunner(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="the device 'cuda' is not available here"):
        LatencyRunner(device="cuda")


def test_inputs_that_have_no_batch_to_repeat_are_refused():
    with pytest.raises(
        ConfigError, match="batch=4 needs tensors whose first dimension is the batch; .*\\(1, 2\\), \\(5,\\)"
    ):
        LatencyRunner(batch=4)(nn.Identity(), (X, torch.zeros(5)))
    with pytest.raises(ConfigError, match="makes its own tensors: batch=4 cannot be applied"):
        LatencyRunner(batch=4)(nn.Identity(), lambda model: model(X))


@pytest.mark.usefixtures("clock")
def test_inputs_may_be_a_function_that_calls_the_model():
    assert LatencyRunner(repeats=2)(nn.Linear(2, 2), lambda model: model(X)).batch is None


@pytest.mark.filterwarnings(
    "ignore:1 of 1 measured latencies vary", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_each_runtime_runs_the_model_and_leaves_it_alone(runtime):
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.ReLU())
    measured = LatencyRunner(runtime, threads=1, repeats=3)(model, (X,))
    assert measured.median_ms > 0
    assert (measured.runtime, measured.repeats, model.training) == (runtime, 3, True)


def test_no_models_take_no_time():
    assert LatencyRunner(parameters).in_turns([], X) == []


def test_onnxruntime_says_which_inputs_it_takes():
    with pytest.raises(ConfigError, match="onnxruntime takes example_inputs that are a tensor or a tuple, got dict"):
        LatencyRunner("onnxruntime")(nn.Identity(), {"input": X})


@pytest.mark.usefixtures("clock")
def test_more_subnets_than_torch_keeps_compiled_are_all_compiled_and_not_in_the_timed_forwards(monkeypatch):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(latency.torch, "compile", lambda f, dynamic: COMPILE(f, backend=backend, dynamic=dynamic))
    counts = []
    models = [nn.Sequential(nn.Linear(2, width), nn.ReLU()) for width in range(1, 13)]
    in_turns = latency.in_turns
    monkeypatch.setattr(
        latency, "in_turns", lambda *args, **options: counts.append(len(compiled)) or in_turns(*args, **options)
    )
    assert len(LatencyRunner("compile", repeats=2).in_turns(models, X)) == 12
    assert counts == [12]
    assert len(compiled) == 12


COMPILE = torch.compile
