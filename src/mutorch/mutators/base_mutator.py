"""The base of mutators that decide in callbacks, while the model runs."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from mutorch.errors import BindError, FixedError, MutorchError, StateError, nearest
from mutorch.mutables import BaseMutable, DerivedMutable, InputChoice, LayerChoice, Mutable, MutableScope
from mutorch.mutables.inputs import NO_KEY
from mutorch.space import SearchSpace

from .groups import group, tell_paths, walk
from .mutable_tree import StructuredMutableTreeNode
from .wrappers import unwrap


class CallbackError(MutorchError, NotImplementedError):
    """A callback that a mutator does not have."""


class BaseMutator(nn.Module):
    """Decides every `LayerChoice` and `InputChoice` of one model in callbacks, while the model runs (seed 004).

    The model holds no architecture state: its choices ask the mutator. The mutator does not hold the model as a child
    either, so `mutator.parameters()` are the mutator's own. `MaskMutator` is the class to begin with: it decides by masks.

    Args:
        model: what is decided from now on; a wrapper (DDP, torch.compile) is looked through.

    Attributes:
        mutables: the tree of mutables; iterating it gives each key once, scopes before what is inside.

    Errors:
        BindError: a choice with a mutator already, one key for different things, or `choose_from` with a key that no
            earlier mutable has (also `RuntimeError`). Nothing is bound then.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model = unwrap(model)
        self.__dict__["_model"] = model
        tell_paths(model)
        self.mutables = StructuredMutableTreeNode(None)
        _check_others(model)
        self._grow(model, self.mutables, set())
        _check(list(self.undedup_mutables), self)
        for mutable in self.undedup_mutables:
            mutable.set_mutator(self)

    @property
    def model(self) -> nn.Module:
        """The model that it decides."""
        model: nn.Module = self.__dict__["_model"]
        return model

    @property
    def space(self) -> SearchSpace:
        """The decisions of the model, as every other mutator and strategy sees them."""
        return group(self.model)[0]

    @property
    def undedup_mutables(self) -> Iterator[Mutable]:
        """All mutables, also those that share a key."""
        return self.mutables.traverse(deduplicate=False)

    def unbind(self) -> None:
        """Let the model go: another mutator may decide it."""
        for mutable in self.undedup_mutables:
            if mutable.mutator is self:
                mutable.set_mutator(None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: the model is what is called."""
        raise StateError(f"a {type(self).__name__} is not called; call the model that it decides")

    # ---- callbacks -----------------------------------------------------------------------------------------------

    def on_forward_layer_choice(self, mutable: LayerChoice, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
        """What a `LayerChoice` computes on these arguments, and the mask that says by which candidates."""
        raise CallbackError(f"{type(self).__name__} has no on_forward_layer_choice, and {mutable.key!r} was called")

    def on_forward_input_choice(self, mutable: InputChoice, tensor_list: list[Any]) -> tuple[Any, Tensor]:
        """What an `InputChoice` gives of these inputs, and the mask that says which."""
        raise CallbackError(f"{type(self).__name__} has no on_forward_input_choice, and {mutable.key!r} was called")

    def enter_mutable_scope(self, mutable_scope: MutableScope) -> None:
        """A scope begins to compute."""

    def exit_mutable_scope(self, mutable_scope: MutableScope) -> None:
        """A scope is done, or failed."""

    def choice_of(self, mutable: Mutable) -> Any:
        """The choice that is in force, spelled as in an architecture; `None` if it cannot be spelled so."""
        return None

    def decides(self, mutable: Mutable) -> bool:
        """Whether there is a decision in force for it."""
        return self.choice_of(mutable) is not None

    def export(self) -> dict[str, Any]:
        """The final architecture."""
        raise CallbackError(f"{type(self).__name__} has no export")

    # ---- binding -------------------------------------------------------------------------------------------------

    def _grow(self, module: nn.Module, node: StructuredMutableTreeNode, seen: set[int]) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        if isinstance(module, Mutable):
            below = node.add_child(module)
            node = below if isinstance(module, MutableScope) else node
        for child in module.children():
            self._grow(child, node, seen)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model":
            raise FixedError(f"a {type(self).__name__} belongs to one model; make another one of the other model")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        raise StateError(
            f"a {type(self).__name__} belongs to its model and is not copied; save its state_dict, and make another of the copy"
        )


def _check(mutables: list[Mutable], mutator: BaseMutator) -> None:
    known: dict[str, Mutable] = {}
    for mutable in mutables:
        what = f"{type(mutable).__name__} {mutable.key!r}"
        if mutable.mutator is not None:
            raise BindError(
                f"{what} is decided by a {type(mutable.mutator).__name__} already, expected none; call its unbind() before a "
                f"{type(mutator).__name__} takes over"
            )
        for source in getattr(mutable, "choose_from", ()):
            if source != NO_KEY and source not in known:
                raise BindError(
                    f"{what} chooses from {source!r}, expected the key of an earlier mutable; {nearest(source, known)}"
                )
        assert mutable.key is not None  # it was told where it stands
        other = known.setdefault(mutable.key, mutable)
        if other.alias != mutable.alias:
            raise BindError(
                f"key {mutable.key!r} was given to the {type(other if other.alias else mutable).__name__} at "
                f"{other.name if other.alias else mutable.name!r}, and is the path of another mutable; rename the key"
            )
        if other is not mutable and _kind(other) != _kind(mutable):
            raise BindError(
                f"key {mutable.key!r} is shared by a {type(other).__name__} at {other.name!r} with {_kind(other)[1]} and a "
                f"{type(mutable).__name__} at {mutable.name!r} with {_kind(mutable)[1]}; expected equal ones, or two keys"
            )


def _kind(mutable: Mutable) -> tuple[type | None, Any]:
    """What mutables of one key have in common."""
    kind = next((cls for cls in (LayerChoice, InputChoice, MutableScope) if isinstance(mutable, cls)), None)
    return kind, [*mutable.choices, getattr(mutable, "n_chosen", None)]


def _check_others(model: nn.Module) -> None:
    """Nothing, if callbacks decide all of the model that is not decided yet."""
    for path, module, _ in walk(model):
        undecided = isinstance(module, BaseMutable) and module.is_decision and module.current_choice is None
        if undecided and not isinstance(module, Mutable | DerivedMutable):
            raise BindError(
                f"{path!r} is a {type(module).__name__} without a choice, which callbacks do not decide; expected LayerChoice "
                "and InputChoice, or let mutorch.Mutator decide the model"
            )
