import pytest
import torch
from torch import nn

from mutorch.cost import count
from mutorch.cost.observe import observe
from mutorch.errors import CostError
from mutorch.mutables import OneShotMutableOP

X = torch.zeros(1, 4)


class Half(nn.Module):
    def forward(self, x):
        return x.half()


def block(**candidates):
    block = OneShotMutableOP(candidates)
    block.current_choice = next(iter(candidates))
    return block


def test_one_forward_counts_every_candidate_under_its_choice():
    model = nn.Sequential(block(big=nn.Linear(4, 4), none=nn.Identity()), nn.Linear(4, 1))
    seen = observe(model, X, decisions={id(model[0]): "op"})
    assert seen.flops == {((("op", "big"),), "0._candidates.big"): 32, ((), "1"): 8}
    assert not seen.reshaping


def test_nested_candidates_are_counted_under_both_choices():
    inner = block(a=nn.Linear(4, 4), b=nn.Linear(4, 4, bias=False))
    model = nn.Sequential(block(skip=nn.Identity(), deep=inner))
    seen = observe(model, X, decisions={id(model[0]): "outer", id(inner): "inner"})
    assert {context for context, _ in seen.flops} == {
        (("outer", "deep"), ("inner", "a")),
        (("outer", "deep"), ("inner", "b")),
    }


@pytest.mark.parametrize(
    "other", [nn.Linear(4, 5), nn.Unflatten(1, (2, 2)), Half()], ids=["width", "dimensions", "dtype"]
)
def test_candidates_whose_outputs_differ_are_reported(other):
    model = block(same=nn.Identity(), other=other)
    assert observe(model, X, decisions={id(model): "op"}).reshaping.keys() == {"op"}


def test_an_error_in_a_candidate_names_its_choice():
    model = block(good=nn.Identity(), bad=nn.Linear(7, 4))
    with pytest.raises(RuntimeError, match="cannot be multiplied") as error:
        observe(model, X, decisions={id(model): "op"})
    assert error.value.__notes__ == ["while counting choice 'bad' of decision 'op'"]


def test_operations_without_a_formula_are_listed_by_name():
    library = torch.library.Library("mutorch_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")

    class Custom(nn.Module):
        def forward(self, x):
            return torch.ops.mutorch_test.twice(x) + torch.ops.mutorch_test.twice(x)

    seen = observe(Custom(), X)
    assert seen.uncounted["mutorch_test.twice"] == 2
    assert seen.flops.total() == 0


def test_unknown_convention_is_refused():
    with pytest.raises(
        CostError, match="no counting convention 'mmrazor'; did you mean 'mmr'\\? allowed: 'mac', 'mmr'"
    ):
        count(nn.Linear(4, 4), X, convention="mmrazor")
