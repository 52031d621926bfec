import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mutorch import depth, export, searchable, widths
from mutorch.errors import ConfigError, SpaceError
from mutorch.mutables import OneShotMutableValue
from mutorch.mutators import Mutator
from mutorch.ops import DynamicConv2d
from mutorch.ops.kernel import LearnedTransform
from mutorch.space import Decision, Ref, SearchSpace
from mutorch.training import Phase, ProgressiveShrinking, fit

SPACE = SearchSpace(
    [
        Decision("1.kernel", (3, 5, 7)),
        Decision("2.kernel", (3, 5, 7)),
        Decision("blocks.depth", (1, 2, 3)),
        Decision("width", (4, 6, 8)),
        Decision("op", ("conv", "pool", "skip")),
    ]
)
PHASES = [
    Phase(10),
    Phase(20, "*.kernel"),
    Phase(5, "*.depth", num_choices=2),
    Phase(5, "*.depth"),
    Phase(10, ("width", "op"), num_paths=3),
]


def test_each_phase_opens_more_and_nothing_that_was_open_closes():
    shrinking = ProgressiveShrinking(SPACE, PHASES)
    assert shrinking.steps == 50
    full = {"1.kernel": (7,), "2.kernel": (7,), "blocks.depth": (3,), "width": (8,), "op": ("conv",)}
    kernels = {**full, "1.kernel": (7, 5, 3), "2.kernel": (7, 5, 3)}
    expected = [
        full,
        kernels,
        {**kernels, "blocks.depth": (3, 2)},
        {**kernels, "blocks.depth": (3, 2, 1)},
        {**kernels, "blocks.depth": (3, 2, 1), "width": (8, 6, 4), "op": ("conv", "pool", "skip")},
    ]
    assert [shrinking.open_choices(step) for step in (9, 10, 30, 35, 40)] == expected
    assert shrinking.open_choices(10**6) == expected[-1]


def test_steps_draw_only_what_is_open_and_all_of_it():
    shrinking = ProgressiveShrinking(SPACE, PHASES)
    seen = {name: set() for name in SPACE.names}
    for step in range(10, 30):
        largest, drawn = shrinking.architectures(0, step)
        assert largest == SPACE.max
        for name, choice in drawn.items():
            seen[name].add(choice)
    assert seen == {"1.kernel": {3, 5, 7}, "2.kernel": {3, 5, 7}, "blocks.depth": {3}, "width": {8}, "op": {"conv"}}
    assert shrinking.architectures(0, 3) == [SPACE.max]
    assert len(shrinking.architectures(0, 45)) == 4


@given(st.integers(0, 60), st.integers(0, 5))
@settings(max_examples=20)
def test_architectures_are_a_function_of_seed_and_step_and_belong_to_the_space(step, seed):
    drawn = ProgressiveShrinking(SPACE, PHASES).architectures(seed, step)
    assert drawn == ProgressiveShrinking(SPACE, PHASES).architectures(seed, step)
    assert all(architecture in SPACE for architecture in drawn)


def test_decisions_may_be_selected_by_a_function():
    shrinking = ProgressiveShrinking(SPACE, [Phase(1, lambda decision: "kernel" in decision.name)])
    assert [name for name, choices in shrinking.open_choices(0).items() if len(choices) > 1] == ["1.kernel", "2.kernel"]


def test_constraints_are_obeyed_in_every_phase():
    space = SearchSpace(
        SPACE.decisions, [Ref("1.kernel").eq(Ref("2.kernel")), Ref("width") * Ref("blocks.depth") <= 18]
    )
    shrinking = ProgressiveShrinking(space, PHASES)
    for step in range(60):
        for architecture in shrinking.architectures(1, step):
            assert architecture in space
            assert all(architecture[name] in choices for name, choices in shrinking.open_choices(step).items())


def test_decisions_inside_candidates_that_are_not_open_do_not_matter_yet():
    space = SearchSpace([Decision("op", ("conv", "pool")), Decision("size", (2, 3), when=(("op", "pool"),))])
    shrinking = ProgressiveShrinking(space, [Phase(5, "size"), Phase(5, "op")])
    assert {shrinking.architecture(0, step)["size"] for step in range(5)} == {3}
    late = [shrinking.architecture(0, step) for step in range(5, 40)]
    assert {architecture["size"] for architecture in late if architecture["op"] == "pool"} == {2, 3}


def test_what_makes_no_schedule_is_refused():
    with pytest.raises(ConfigError, match="needs phases, and there are none"):
        ProgressiveShrinking(SPACE, [])
    with pytest.raises(SpaceError, match=r"opens '\*.kernels', which names no decision"):
        ProgressiveShrinking(SPACE, [Phase(1, "*.kernels")])
    with pytest.raises(SpaceError, match="holds for no decision; there are: 1.kernel"):
        ProgressiveShrinking(SPACE, [Phase(1, lambda decision: False)])
    with pytest.raises(ConfigError, match="steps of a phase must be an int of at least 1, got 0"):
        Phase(0)
    with pytest.raises(ConfigError, match="num_choices of a phase must be an int of at least 1, got 1.5"):
        Phase(1, "*", num_choices=1.5)


# ---- training --------------------------------------------------------------------------------------------------------

X = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x).relu()


def elastic():
    torch.manual_seed(0)
    kernels = DynamicConv2d(8, 8, 5, padding=2, kernel=LearnedTransform())
    kernels.register_mutable_attr("kernel_size", OneShotMutableValue([1, 3, 5], alias="kernel"))
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    model = nn.Sequential(nn.Conv2d(2, 8, 3), kernels, nn.Sequential(Residual(), Residual()), *head)
    net = searchable(model, X, rules=[widths(counts=[4, 8]), depth()])
    mutator = Mutator(net)
    phases = [
        Phase(3),
        Phase(4, "kernel"),
        Phase(3, "*.depth"),
        Phase(4, lambda d: d.name not in ("kernel", "2.depth")),
    ]
    return net, mutator, phases


def loss_fn(model):
    return functional.cross_entropy(model(X), Y)


def test_the_matrices_of_kernels_learn_once_kernels_are_open():
    net, mutator, phases = elastic()
    shrinking = ProgressiveShrinking(mutator.space, phases)
    learned = []
    for step in range(shrinking.steps):
        net.zero_grad()
        shrinking(net, mutator, loss_fn, seed=0, step=step)
        gradients = {name: parameter.grad for name, parameter in net.named_parameters() if "trans_matrix" in name}
        learned.append({name for name, gradient in gradients.items() if gradient is not None and gradient.any()})
    assert learned[:3] == [set()] * 3
    assert set().union(*learned[3:7]) == {"1.trans_matrix_5to3", "1.trans_matrix_3to1"}


def test_a_step_adds_up_the_largest_and_what_the_others_learn_from_it_and_from_the_loss():
    net, mutator, phases = elastic()
    shrinking = ProgressiveShrinking(mutator.space, phases)
    largest, other = shrinking.architectures(0, 12)
    shrinking(net, mutator, loss_fn, seed=0, step=12)
    found = {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}
    net.zero_grad()
    mutator.set_choices(largest)
    teacher = net(X)
    functional.cross_entropy(teacher, Y).backward()
    mutator.set_choices(other)
    output = net(X)
    (functional.cross_entropy(output, Y) + functional.cross_entropy(output, teacher.detach().softmax(1))).backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, dict(net.named_parameters())[name].grad, msg=name)


def test_a_teacher_that_stands_still_replaces_the_largest():
    net, mutator, phases = elastic()
    teacher = export(net, mutator.space.max).train()
    before = copy.deepcopy(teacher.state_dict())
    shrinking = ProgressiveShrinking(mutator.space, phases, teacher=teacher, loss_weight=0.0)
    (drawn,) = shrinking.architectures(0, 12)
    shrinking(net, mutator, loss_fn, seed=0, step=12)
    found = dict(net.named_parameters())["0.weight"].grad.clone()
    net.zero_grad()
    mutator.set_choices(drawn)
    functional.cross_entropy(net(X), teacher(X).detach().softmax(1)).backward()
    torch.testing.assert_close(dict(net.named_parameters())["0.weight"].grad, found)
    assert teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_run_that_was_stopped_in_a_phase_ends_with_the_same_weights(tmp_path):
    weights = []
    for stops in ([14], [5, 14]):
        for number, stop in enumerate(stops):
            net, mutator, phases = elastic()
            optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

            def interrupt(done, steps, loss, stop=stop):
                if done == stop < 14:
                    raise KeyboardInterrupt

            try:
                fit(
                    net,
                    [(X, Y)],
                    lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
                    optimizer,
                    steps=14,
                    mutator=mutator,
                    step=ProgressiveShrinking(mutator.space, phases),
                    checkpoint=tmp_path / f"{len(stops)}.ckpt",
                    checkpoint_every=5,
                    on_step=interrupt,
                )
            except KeyboardInterrupt:
                assert number == 0
        weights.append(net.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_mutator_of_another_space_is_refused():
    net, mutator, _ = elastic()
    with pytest.raises(SpaceError, match="of another space, with the decisions 1.kernel"):
        ProgressiveShrinking(SPACE, PHASES)(net, mutator, loss_fn, seed=0, step=0)
