"""The guide's four steps for a custom mutable, as the guide writes them: register, implement, build, import."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mutorch import Mutator, export
from mutorch.mutables import DumpChosen, MutableModule, OneShotMutableModule
from mutorch.registry import MODELS
from mutorch.subnet import convert_fix_subnet, export_fix_subnet, load_fix_subnet

X = torch.linspace(-1, 1, 6).reshape(3, 2)


@pytest.fixture
def registered(monkeypatch):  # noqa: C901  # a whole class
    """Registers the guide's class, under the name that the library's own one has, for one test."""
    monkeypatch.setattr(MODELS, "_registered", {})

    @MODELS.register_module()
    class OneShotMutableOP(OneShotMutableModule[str, str]):
        def __init__(
            self,
            candidates: dict[str, dict] | nn.ModuleDict,
            module_kwargs: dict[str, dict] | None = None,
            alias: str | None = None,
            init_cfg: dict | None = None,
        ) -> None:
            super().__init__(module_kwargs=module_kwargs, alias=alias, init_cfg=init_cfg)
            self._chosen: str | None = None
            self._candidates = self._build_ops(candidates, module_kwargs)

        @staticmethod
        def _build_ops(
            candidates: dict[str, dict] | nn.ModuleDict, module_kwargs: dict[str, dict] | None = None
        ) -> nn.ModuleDict:
            if isinstance(candidates, nn.ModuleDict):
                return candidates

            ops = nn.ModuleDict()
            for name, op_cfg in candidates.items():
                assert name not in ops
                if module_kwargs is not None:
                    op_cfg.update(module_kwargs)
                ops[name] = MODELS.build(op_cfg)
            return ops

        def fix_chosen(self, chosen: str) -> None:
            if self.is_fixed:
                raise AttributeError(
                    "The mode of current MUTABLE is `fixed`. Please do not call `fix_chosen` function again."
                )

            for c in self.choices:
                if c != chosen:
                    self._candidates.pop(c)

            self._chosen = chosen
            self.is_fixed = True

        def dump_chosen(self) -> str:
            assert self.current_choice is not None

            return self.current_choice

        @property
        def choices(self) -> list[str]:
            return list(self._candidates.keys())

        @property
        def num_choices(self):
            return len(self.choices)

        def sample_choice(self) -> str:
            return np.random.choice(self.choices, 1)[0]

        def forward_fixed(self, x: Any) -> Tensor:
            return self._candidates[self._chosen](x)

        def forward_choice(self, x: Any, choice: str) -> Tensor:
            assert isinstance(choice, str)
            assert choice in self.choices
            return self._candidates[choice](x)

        def forward_all(self, x: Any) -> Tensor:
            outputs = []
            for op in self._candidates.values():
                outputs.append(op(x))
            return sum(outputs)

    return OneShotMutableOP


def build():
    config = {
        "type": "OneShotMutableOP",
        "candidates": {"wide": {"type": "nn.Linear", "out_features": 2}, "narrow": {"type": "nn.Linear"}},
        "module_kwargs": {"in_features": 2, "out_features": 2},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(MODELS.build(config), nn.Tanh())


def test_a_registered_mutable_is_built_from_a_config_instead_of_the_librarys(registered):
    model = build()
    assert type(model[0]) is registered
    assert (model[0].choices, model[0].num_choices, model[0].mutable_prefix) == (["wide", "narrow"], 2, "module")


def test_a_custom_mutable_computes_as_its_state_says(registered):
    op = build()[0]
    assert torch.equal(op(X), op._candidates["wide"](X) + op._candidates["narrow"](X))
    op.current_choice = "narrow"
    assert torch.equal(op(X), op._candidates["narrow"](X))
    narrow = op._candidates["narrow"](X)
    op.fix_chosen("narrow")
    assert torch.equal(op(X), narrow)
    with pytest.raises(AttributeError, match="Please do not call `fix_chosen` function again"):
        op.fix_chosen("narrow")


def test_a_custom_mutable_is_found_set_and_exported(registered):
    model = build()
    mutator = Mutator(model)
    assert (mutator.space.names, mutator.current_choices) == (("0",), {"0": "wide"})
    mutator.set_choices({"0": "narrow"})
    exported = export(model)
    assert torch.equal(exported(X), model(X))
    assert [type(module) for module in exported] == [nn.Linear, nn.Tanh]


def test_a_custom_mutable_goes_through_subnet_files(registered):
    model = build()
    Mutator(model).set_choices({"0": "narrow"})
    subnet, _ = export_fix_subnet(model)
    assert subnet == {"0": DumpChosen("narrow")}
    other = build()
    load_fix_subnet(other, convert_fix_subnet(subnet))
    assert torch.equal(other(X), model(X))
    assert export_fix_subnet(other)[0] == subnet


def test_a_custom_mutable_is_fixed_by_the_mutator(registered):
    model = build()
    expected = model[0]._candidates["narrow"](X).tanh()
    mutator = Mutator(model)
    mutator.fix_choices({"0": "narrow"})
    assert torch.equal(model(X), expected)
    assert mutator.current_choices == {"0": "narrow"}


# ---- candidates kept elsewhere ---------------------------------------------------------------------------------------


class Listed(MutableModule[int, int]):
    """Candidates in a list, chosen by number."""

    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    choices = property(lambda self: list(range(len(self.blocks))))

    def forward(self, x):
        return self.forward_all(x) if self.current_choice is None else self.blocks[self.current_choice](x)

    def forward_fixed(self, x):
        return self.blocks[self.current_choice](x)

    def forward_all(self, x):
        return sum(block(x) for block in self.blocks)

    def fix_chosen(self, chosen):
        self.current_choice = chosen
        self.is_fixed = True

    def dump_chosen(self):
        return DumpChosen(self.current_choice)


class Exportable(Listed):
    def chosen_module(self, choice):
        return self.blocks[choice]


def test_a_mutable_that_says_which_module_a_choice_is_can_be_exported():
    model = nn.Sequential(Exportable(nn.Tanh(), nn.ReLU()))
    mutator = Mutator(model)
    mutator.set_choices({"0": 1})
    assert torch.equal(model(X), X.relu())
    assert isinstance(export(model, {"0": 0})[0], nn.Tanh)


def test_a_mutable_that_does_not_say_so_is_named():
    model = nn.Sequential(Listed(nn.Tanh(), nn.ReLU()))
    with pytest.raises(ValueError, match="Listed keeps its candidates in no nn.ModuleDict named _candidates; override"):
        export(model, {"0": 0})
