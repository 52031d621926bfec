import pytest
import torch
from torch import nn

from mutorch.cost import CostTable, call, count
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = OneShotMutableOP({"on": nn.Linear(3, 3, bias=False), "off": nn.Identity()})

    def forward(self, x, *, by=1.0):
        return self.linear(x) * by


X = torch.ones(2, 3)
FORMS = {
    "a tensor": X,
    "a tuple": (X,),
    "a list": [X],
    "a dict": {"x": X, "by": 2.0},
    "a function": lambda model: model(X, by=3.0),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_example_inputs_calls_the_model(form):
    model = Scale()
    mutator = Mutator(model)
    assert call(model, FORMS[form]).shape == (2, 3)
    assert count(model, FORMS[form]).macs == 18
    assert CostTable.from_model(mutator, FORMS[form])({"linear": "off"}).macs == 0


def test_other_example_inputs_are_refused():
    with pytest.raises(TypeError, match="must be a tensor, a tuple .* a dict .* or a function .* got int"):
        call(nn.Identity(), 3)
