import math

import numpy as np
import pytest
import torch

from mutorch.cost import Costs
from mutorch.errors import ConfigError
from mutorch.search.objectives import Objectives

COSTS = Costs(macs=100, params=10, act_mem_mb=0.5, size_mb=0.25)


@pytest.mark.parametrize(
    ("objective", "result", "values"),
    [
        (None, 0.5, (0.5,)),
        (None, {"acc": 0.5, "loss": 3.0}, (0.5,)),
        ("loss", {"acc": 0.5, "loss": 3.0}, (3.0,)),
        ("-loss", {"acc": 0.5, "loss": 3.0}, (-3.0,)),
        (["acc", "-macs", "-loss"], {"acc": np.float32(0.5), "loss": torch.tensor(3.0)}, (0.5, -100.0, -3.0)),
        (["score", "-params"], 0.5, (0.5, -10.0)),
        ("-loss", {"loss": math.nan}, (-math.inf,)),
    ],
)
def test_objectives_are_read_from_results_and_costs_to_be_maximised(objective, result, values):
    assert Objectives.parse(objective).read(result, COSTS).values == values


@pytest.mark.parametrize(
    ("bound", "value", "violation"),
    [
        (12.0, 12.0, 0.0),
        (12.0, 15.0, 0.25),
        ((10, None), 8.0, 0.2),
        ((10, 12), 11.0, 0.0),
        ((None, 12), 3.0, 0.0),
        (12.0, math.nan, math.inf),
    ],
)
def test_the_violation_of_a_constraint_is_how_far_its_bound_is_missed(bound, value, violation):
    aims = Objectives.parse("acc", {"ms": bound})
    assert aims.read({"acc": 1.0, "ms": value}, None).violation == pytest.approx(violation)


def test_violations_of_several_constraints_add_up_costs_included():
    aims = Objectives.parse(None, {"ms": 10, "macs": 50})
    assert aims.read({"acc": 1.0, "ms": 11}, COSTS).violation == pytest.approx(0.1 + 1.0)


@pytest.mark.parametrize(
    ("objective", "constraints", "message"),
    [
        (["acc", "-acc"], None, "the objective 'acc' is there twice in"),
        ([3], None, r'an objective is a name such as "accuracy" or "-macs", or a list of them, got \[3\]'),
        ("-", None, "an objective is a name"),
        (None, [("ms", 3)], "constraints is a dict such as"),
        (None, {"ms": "fast"}, "constraint on 'ms': cannot read 'fast'; write a number"),
        (None, {"ms": (3, 2)}, "constraint on 'ms': the lower bound 3 is above the upper bound 2"),
    ],
)
def test_what_cannot_be_read_is_an_error_before_anything_is_evaluated(objective, constraints, message):
    with pytest.raises(ConfigError, match=message):
        Objectives.parse(objective, constraints)


@pytest.mark.parametrize(
    ("objective", "result", "message"),
    [
        (None, None, "evaluate must return a number or a dict of numbers, and returned NoneType"),
        (None, torch.zeros(3), r"and returned Tensor of shape \(3,\)"),
        (None, {"acc": "good"}, "and returned str as its 'acc'"),
        (None, {}, "evaluate returned no entries, an empty dict; return what to maximise"),
        ("acuracy", {"accuracy": 1.0}, "evaluate returned no 'acuracy'; did you mean 'accuracy'"),
        ("accuracy", 0.5, "names an entry of what evaluate returns, and that is no dict but a number"),
    ],
)
def test_a_result_that_lacks_what_is_asked_for_is_an_error(objective, result, message):
    with pytest.raises(ConfigError, match=message):
        Objectives.parse(objective).read(result, COSTS)
