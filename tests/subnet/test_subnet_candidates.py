import copy
import pickle

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mutorch.errors import ChoiceError, SpaceError
from mutorch.mutables import MutableValue, OneShotMutableOP
from mutorch.subnet import Candidates

ZEROS = {"score": 0.0, "flops": 0.0, "params": 0.0, "latency": 0.0}
FIRST, SECOND = {"1": "choice1", "2": "choice2"}, {"1": "choice3", "2": "choice4"}


def item(subnet, **indicators):
    return {str(subnet): {**ZEROS, **indicators}}


@pytest.mark.parametrize(
    "given",
    [FIRST, [FIRST], (FIRST,), [[FIRST]], Candidates(FIRST), {str(FIRST): {}}, {str(FIRST): {"flops": 0.0}}],
)
def test_a_subnet_is_taken_alone_or_paired_or_in_a_list(given):
    before = copy.deepcopy(given)
    by_append, by_extend, by_insert, by_addition = (Candidates() for _ in range(4))
    by_append.append(given)
    by_extend.extend(given)
    by_insert.insert(0, given)
    by_addition += given if not isinstance(given, dict) else [given]
    assert Candidates(given) == by_append == by_extend == by_insert == by_addition == [item(FIRST)]
    assert given == before


def test_candidates_are_a_list():
    candidates = Candidates([FIRST, SECOND])
    assert (len(candidates), candidates[1], candidates[:1].subnets) == (2, item(SECOND), [FIRST])
    assert (candidates + [FIRST]).subnets == [FIRST, SECOND, FIRST]
    assert isinstance(candidates + [FIRST], Candidates)
    candidates.insert(1, [SECOND, FIRST])
    assert candidates.subnets == [FIRST, SECOND, FIRST, SECOND]
    assert Candidates() == Candidates([]) == Candidates({}) == []


def test_indicators_are_set_read_and_sorted_by():
    candidates = Candidates([FIRST, {str(SECOND): {"score": 70.456, "flops": 3.0}}])
    candidates.set_score(0, 80)
    candidates.set_resource(0, 49.9)
    candidates.set_resources(0, 2.5, "latency")
    assert (candidates.scores, candidates.resources()) == ([80, 70.456], [49.9, 3.0])
    assert candidates.resources("latency") == [2.5, 0.0]
    candidates.sort_by("flops", reverse=False)
    assert candidates.subnets == [SECOND, FIRST]
    candidates.sort_by()
    assert candidates.subnets == [FIRST, SECOND]


def test_sorting_keeps_the_order_of_equals():
    candidates = Candidates([{str({"a": n}): {"score": n % 2}} for n in range(6)])
    candidates.sort_by()
    assert [subnet["a"] for subnet in candidates.subnets] == [1, 3, 5, 0, 2, 4]


def test_resources_are_merged_from_a_position_on():
    candidates = Candidates([FIRST, SECOND, FIRST])
    candidates.update_resources([{"flops": 1.0}, {"params": 2.0, "latency": 3.0}], start=1)
    assert candidates.data[1:] == [item(SECOND, flops=1.0), item(FIRST, params=2.0, latency=3.0)]
    assert candidates[0] == item(FIRST)
    with pytest.raises(AssertionError, match="2 resources from 2 on do not fit 3 candidates"):
        candidates.update_resources([{"flops": 9.0}, {}], start=2)
    with pytest.raises(ChoiceError, match="no indicator 'flop'; did you mean 'flops'"):
        candidates.update_resources([{"flops": 9.0}, {"flop": 1.0}])
    assert candidates.resources("flops") == [0.0, 1.0, 0.0]


plain = st.one_of(st.text(max_size=4), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())


@given(st.dictionaries(st.text(), plain | st.lists(plain, max_size=3), min_size=1, max_size=4))
def test_subnets_come_back_from_their_text(subnet):
    candidates = Candidates([subnet, subnet])
    assert candidates.subnets == [subnet, subnet]
    for again in (yaml.safe_load(yaml.safe_dump(list(candidates))), pickle.loads(pickle.dumps(candidates))):
        assert Candidates(again) == candidates


def test_numpy_values_are_kept_as_plain_ones():
    candidates = Candidates({"op": np.str_("conv"), "depth": np.int64(3), "shape": (np.float64(0.5), 1)})
    assert candidates.subnets == [{"op": "conv", "depth": 3, "shape": [0.5, 1]}]
    op, value = OneShotMutableOP({"a": MutableValue([1])}), MutableValue([1, 2])
    assert Candidates({"op": op.sample_choice(0), "value": value.current_choice}).subnets == [{"op": "a", "value": 1}]


def test_value_and_channel_subnets_stay_together():
    both = {"value_subnet": {"depth": 3}, "channel_subnet": {"unit": 8}}
    assert Candidates(both).subnets == [both]


def test_text_is_read_as_data_and_never_run(tmp_path):
    target = tmp_path / "ran"
    candidates = Candidates({f"__import__('pathlib').Path({str(target)!r}).touch()": {"score": 1.0}})
    with pytest.raises(SpaceError, match="not a subnet: "):
        _ = candidates.subnets
    assert not target.exists()
    with pytest.raises(SpaceError, match=r"not a subnet: '\[1\]'"):
        _ = Candidates({"[1]": {}}).subnets


@pytest.mark.parametrize(
    "ask",
    [
        lambda candidates: candidates.resources("score"),
        lambda candidates: candidates.resources("flop"),
        lambda candidates: candidates.set_resource(0, 1.0, "scores"),
        lambda candidates: candidates.sort_by("top1"),
        lambda candidates: candidates.append({"{}": {"top1": 3}}),
    ],
)
@pytest.mark.parametrize("error", [ChoiceError, AssertionError])
def test_unknown_indicators_are_refused(ask, error):
    candidates = Candidates(FIRST)
    with pytest.raises(error, match="no indicator '(score|flop|scores|top1)'"):
        ask(candidates)
    assert candidates == [item(FIRST)]


@pytest.mark.parametrize("given", ["conv", 3, [3], [["conv"]]])
def test_what_is_no_subnet_is_refused(given):
    with pytest.raises(TypeError, match="a candidate is a dict, or a list of dicts, got (str|int)"):
        Candidates(given)


def test_no_candidates_have_no_subnets():
    with pytest.raises(AssertionError, match="there are no candidates yet"):
        _ = Candidates().subnets
    assert Candidates().scores == []
