"""Every error that mutorch raises on purpose.

Each class is also the builtin exception that users of the older libraries catch at that place, so
`except ValueError` keeps working; catch `MutorchError` for all of them.
"""

import difflib
from collections.abc import Iterable


class MutorchError(Exception):
    """Base of all errors raised by mutorch."""

    def __str__(self) -> str:
        # KeyError would show the repr of its message, with quotes.
        return str(self.args[0]) if self.args else ""


class ChoiceError(MutorchError, ValueError, AssertionError):
    """A choice that its decision does not allow."""


class FixedError(MutorchError, AttributeError, RuntimeError):
    """A change asked of a mutable that is already fixed."""


class StateError(MutorchError, RuntimeError):
    """Something asked for before what it needs was done."""


class UndecidedError(StateError, ValueError):
    """A model that is called while a decision of it is still open."""


class BindError(StateError, AssertionError):
    """A model that a mutator cannot decide."""


class MaskError(MutorchError, TypeError):
    """Something that is no mask."""


class DerivedError(MutorchError, RuntimeError):
    """A derived value asked for what only its sources can do, or derived from nothing."""


class SpaceError(MutorchError, ValueError, AssertionError):
    """An architecture or a definition that does not fit its search space."""


class CandidateError(MutorchError, TypeError):
    """Candidates of a kind that a choice cannot have."""


class MissingCandidateError(MutorchError, KeyError, IndexError):
    """A candidate that a choice does not have."""


class MissingInputError(MutorchError, KeyError):
    """An input that a choice needs and did not get."""


class ConstraintError(SpaceError):
    """An architecture that breaks a constraint of its search space."""


class ExpressionError(MutorchError, RuntimeError):
    """An expression used as if its value were known already."""


class MissingDecisionError(MutorchError, KeyError):
    """A decision that was not made."""


class ArchitectureKeyError(SpaceError, RuntimeError):
    """An architecture with other decisions than the model has."""


class RegistryError(MutorchError, KeyError):
    """A name that a registry does not hold, or holds already."""


class ConfigError(MutorchError, ValueError):
    """A configuration that cannot be read or built."""


class BudgetError(MutorchError, ValueError):
    """A budget that is written wrongly."""


class InfeasibleBudgetError(BudgetError):
    """A budget that no architecture of the space meets."""


class CostError(MutorchError, RuntimeError):
    """A model whose costs cannot be put into an exact table."""


class MeasureError(MutorchError, RuntimeError):
    """A measurement that gave no number, or a value asked for that was not measured."""


class ExportError(MutorchError, RuntimeError):
    """A model that cannot be made plain."""


class LoadError(MutorchError, RuntimeError):
    """A file that does not fit the model it is loaded into."""


class ResumeError(MutorchError, RuntimeError):
    """A log or checkpoint that belongs to another run."""


class WorkerError(MutorchError, RuntimeError):
    """An evaluation elsewhere that cannot be sent, or whose worker ended again and again."""


class RemoteError(MutorchError, RuntimeError):
    """An error of an evaluation elsewhere whose own class cannot be sent; it has that class's name, text and traceback."""


class TrialTimeoutError(MutorchError, TimeoutError):
    """An evaluation that took longer than it may."""


class LogLockedError(ResumeError):
    """A log that another search writes right now."""


class StorageError(MutorchError, ConnectionError):
    """A shared storage that cannot be reached, or does not do what was asked of it."""


class MissingExtraError(MutorchError, ImportError):
    """An optional library that is not installed; the message has the install line."""


def nearest(name: object, allowed: Iterable[object], limit: int = 10) -> str:
    """The sentence that ends an error about an unknown name: near misses first, then what exists.

    Example:
        >>> nearest("conv33", ["conv3", "conv5", "skip"])
        "did you mean 'conv3' or 'conv5'? allowed: 'conv3', 'conv5', 'skip'"
    """
    options = list(allowed)
    if not options:
        return "none are allowed here"
    texts = {str(option): option for option in options}
    close = difflib.get_close_matches(str(name), list(texts), n=3, cutoff=0.5)
    shown = ", ".join(repr(option) for option in options[:limit])
    more = f" and {len(options) - limit} more" if len(options) > limit else ""
    hint = f"did you mean {' or '.join(repr(texts[text]) for text in close)}? " if close else ""
    return f"{hint}allowed: {shown}{more}"
