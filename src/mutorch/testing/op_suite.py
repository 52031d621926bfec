"""The suite that every dynamic op must pass: subclass it in a test file, and pytest runs it."""

import copy
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mutorch.mutables import SequentialMutableChannel, SimpleMutableChannel
from mutorch.ops import DynamicOp, static_copy

Active = Mapping[str, Tensor]
"""Attribute to the positions that are active."""


class OpSuite:
    """Tests of one dynamic op, against its static class and a reference that cuts tensors by hand.

    A subclass names the op and its attributes of channels, and says how a static op, inputs and the reference are made.

    Attributes:
        dynamic: the class under test.
        attrs: the attributes that get channel mutables.
        tolerance: how far the reference may be off; it sums in another order.

    Example:
        >>> import torch.nn.functional as F
        >>> from mutorch.ops import DynamicLinear
        >>> class TestDynamicLinear(OpSuite):
        ...     dynamic, attrs = DynamicLinear, ("in_features", "out_features")
        ...
        ...     def static(self):
        ...         return nn.Linear(6, 8)
        ...
        ...     def inputs(self, active):
        ...         return torch.randn(3, len(active["in_features"]))
        ...
        ...     def reference(self, static, active, x):
        ...         rows, columns = active["out_features"], active["in_features"]
        ...         return F.linear(x, static.weight[rows][:, columns], static.bias[rows])
        >>> TestDynamicLinear().test_the_active_part_is_what_the_reference_computes()
    """

    dynamic: ClassVar[type[DynamicOp]]
    attrs: ClassVar[tuple[str, ...]]
    tolerance: ClassVar[float] = 1e-6

    # ---- what a subclass says ----------------------------------------------------------------------------------------

    def static(self) -> nn.Module:
        """A static op."""
        raise NotImplementedError

    def inputs(self, active: Active) -> Tensor:
        """An input that fits what is active."""
        raise NotImplementedError

    def reference(self, static: Any, active: Active, x: Tensor) -> Tensor:
        """What the op must compute, from the tensors of a static one."""
        raise NotImplementedError

    def selections(self, sizes: Mapping[str, int]) -> Iterator[dict[str, list[int]]]:
        """What is tried: attribute to active positions."""
        yield {attr: list(range(size)) for attr, size in sizes.items()}
        yield {attr: list(range(max(1, size // 2))) for attr, size in sizes.items()}
        yield {attr: sorted({0, size // 2, size - 1}) for attr, size in sizes.items()}

    # ---- tests -------------------------------------------------------------------------------------------------------

    def test_a_converted_op_keeps_tensors_and_computes_the_same(self) -> None:
        static = self._static()
        op = self.dynamic.convert_from(static)
        assert list(op.state_dict()) == list(static.state_dict())
        assert all(a is b for a, b in zip(op.parameters(), static.parameters(), strict=True))
        x = self._inputs(self._every(op))
        for training in (False, True):
            assert torch.equal(copy.deepcopy(op).train(training)(x), copy.deepcopy(static).train(training)(x))

    def test_the_active_part_is_what_the_reference_computes(self) -> None:
        for static, op, active in self._cases():
            x = self._inputs(active)
            found, expected = op.eval()(x), self.reference(static.eval(), active, x)
            assert found.shape == expected.shape
            assert torch.allclose(found, expected, rtol=0, atol=self.tolerance)

    def test_gradients_are_those_of_the_reference(self) -> None:
        for static, op, active in self._cases():
            x = self._inputs(active)
            whole = dict(op.named_parameters())
            own = copy.deepcopy(static).eval()
            self.reference(own, active, x).square().sum().backward()  # type: ignore[no-untyped-call]
            op.eval()(x).square().sum().backward()
            for name, parameter in own.named_parameters():
                expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                given = whole[name].grad
                assert given is not None, name
                scale = max(1.0, float(expected.abs().max()))
                assert torch.allclose(given, expected, rtol=0, atol=100 * self.tolerance * scale), name

    def test_the_static_op_computes_the_same_bit_for_bit(self) -> None:
        for _, op, active in self._cases():
            x = self._inputs(active)
            for mutable in op.mutable_attrs.values():
                mutable.fix_chosen()  # type: ignore[operator]
            plain = op.eval().to_static_op()
            assert type(plain) is self.dynamic.static_class
            assert torch.equal(plain(x), op(x))
            assert not any("mutorch" in type(module).__module__ for module in plain.modules() if module is not plain)

    def test_training_changes_the_whole_as_it_changes_the_static_op(self) -> None:
        for _, op, active in self._cases():
            before = {name: buffer.clone() for name, buffer in op.named_buffers()}
            plain = copy.deepcopy(op)
            for mutable in plain.mutable_attrs.values():
                mutable.fix_chosen()  # type: ignore[operator]
            static = plain.to_static_op().train()
            x = self._inputs(active)
            for _ in range(3):
                assert torch.equal(op.train()(x), static(x))
            again = static_copy(op)
            for (name, found), (_, expected) in zip(again.named_buffers(), static.named_buffers(), strict=True):
                assert torch.equal(found, expected), name
            for name, buffer in static.named_buffers():
                if buffer.dim() == 1 and len(active[self.attrs[0]]) < len(before[name]):
                    gone = torch.ones(len(before[name]), dtype=torch.bool)
                    gone[active[self.attrs[0]]] = False
                    assert torch.equal(dict(op.named_buffers())[name][gone], before[name][gone]), name

    def test_without_fixing_there_is_no_static_op(self) -> None:
        op = self._converted()
        attr = self.attrs[0]
        op.register_mutable_attr(attr, SequentialMutableChannel(op.whole_size(attr)))
        with _raises(RuntimeError):
            op.to_static_op()

    def test_a_deep_copy_follows_its_own_mutables(self) -> None:
        static, op, active = list(self._cases())[1]
        copied = copy.deepcopy(op)
        for name, mutable in op.mutable_attrs.items():
            mutable.current_choice = list(range(op.whole_size(name)))  # type: ignore[assignment]
        x = self._inputs(active)
        expected = self.reference(static.eval(), active, x)
        assert torch.allclose(copied.eval()(x), expected, rtol=0, atol=self.tolerance)
        op.eval()(self._inputs(self._every(op)))

    def test_a_saved_op_comes_back(self) -> None:
        for _, op, active in self._cases():
            stream = io.BytesIO()
            torch.save(op.eval(), stream)
            stream.seek(0)
            loaded = torch.load(stream, weights_only=False)
            x = self._inputs(active)
            assert torch.equal(loaded(x), op(x))

    def test_mutables_of_another_length_are_refused(self) -> None:
        op = self._converted()
        for attr in self.attrs:
            with _raises(ValueError):
                op.register_mutable_attr(attr, SequentialMutableChannel(op.whole_size(attr) + 1))
            assert op.get_mutable_attr(attr) is None

    def test_unknown_attributes_are_refused(self) -> None:
        op = self._converted()
        for error in (NotImplementedError, AssertionError):
            with _raises(error):
                op.register_mutable_attr("no such attribute", SequentialMutableChannel(2))
        with _raises(AssertionError):
            op.get_mutable_attr("no such attribute")

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _static(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            static = self.static()
            for tensor in (*static.parameters(), *static.buffers()):
                if tensor.is_floating_point():
                    tensor.data = torch.rand(tensor.shape) + 0.1
        return static

    def _inputs(self, active: Active) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.inputs(active)

    def _converted(self) -> DynamicOp:
        return self.dynamic.convert_from(self._static())

    def _every(self, op: DynamicOp) -> dict[str, Tensor]:
        return {attr: torch.arange(op.whole_size(attr)) for attr in self.attrs}

    def _cases(self) -> Iterator[tuple[Any, DynamicOp, dict[str, Tensor]]]:
        sizes = {attr: self._converted().whole_size(attr) for attr in self.attrs}
        for selection in self.selections(sizes):
            static, op = self._static(), self._converted()
            for attr, positions in selection.items():
                mutable = SimpleMutableChannel(sizes[attr])
                mutable.current_choice = list(positions)
                op.register_mutable_attr(attr, mutable)
            yield static, op, {attr: torch.tensor(positions) for attr, positions in selection.items()}


@contextmanager
def _raises(error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except error:
        return
    raise AssertionError(f"no {error.__name__} was raised")
