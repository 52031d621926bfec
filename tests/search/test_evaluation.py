import random

import numpy as np
import torch

from mutorch.search import Evaluation, search_space
from mutorch.search.evaluation import seeded
from mutorch.space import Decision, SearchSpace


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_random_numbers_of_an_evaluation_depend_on_seed_and_trial_alone():
    def job(seed):
        return Evaluation(lambda architecture: dict(zip("abc", draws(), strict=True)), seed)

    first, again = job(3)(5, {}), job(3)(5, {})
    draws()
    assert first.result == again.result
    assert job(3)(6, {}).result != first.result != job(4)(5, {}).result


def test_the_callers_generators_go_on_as_if_nothing_was_drawn():
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    with seeded(0, 0):
        draws()
        assert states() != before
    assert states() == before


def test_a_noisy_evaluation_gives_the_same_history_again():
    space = SearchSpace([Decision(name, (0, 1, 2)) for name in "abcd"])
    one, two = (search_space(space, lambda a: sum(a.values()) + random.random(), num_trials=30) for _ in range(2))
    assert [(t.architecture, t.score) for t in one] == [(t.architecture, t.score) for t in two]


def test_an_error_is_an_outcome_with_a_note():
    def fail(architecture):
        raise ValueError("no")

    outcome = Evaluation(fail, 0)(2, {"op": "a"})
    assert (outcome.index, outcome.result, str(outcome.error)) == (2, None, "no")
    assert outcome.error.__notes__ == ["while evaluating trial 2, {'op': 'a'}"]
