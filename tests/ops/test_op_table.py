import pytest
from torch import nn

from mutorch.errors import RegistryError
from mutorch.ops import DYNAMIC_OPS, DynamicLinear, DynamicOp, register_op


def test_every_op_of_the_table_names_its_static_class():
    for static, dynamic in DYNAMIC_OPS.items():
        assert dynamic.static_class is static
        assert issubclass(dynamic, static)
        assert issubclass(dynamic, DynamicOp)
        assert dynamic.supports("out_channels")


def test_registering_a_class_twice_is_refused():
    with pytest.raises(RegistryError, match="Linear has the dynamic op DynamicLinear already"):
        register_op(nn.Linear, DynamicLinear)
    with pytest.raises(TypeError, match="static_class = Bilinear"):
        register_op(nn.Bilinear, DynamicLinear)


def test_a_class_of_ones_own_can_be_registered(monkeypatch):
    class Scaled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    class DynamicScaled(DynamicOp, Scaled):
        static_class = Scaled
        attrs, aliases = DynamicLinear.attrs, DynamicLinear.aliases

    monkeypatch.setattr("mutorch.ops.table.DYNAMIC_OPS", table := {})
    register_op(Scaled, DynamicScaled)
    assert table == {Scaled: DynamicScaled}
