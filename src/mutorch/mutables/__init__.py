"""What may change in a model: modules, values, and what is derived from values."""

from .base import CHOICE_TYPE as CHOICE_TYPE
from .base import CHOSEN_TYPE as CHOSEN_TYPE
from .base import BaseMutable as BaseMutable
from .candidates import build_candidates as build_candidates
from .derived import DerivedMethodMixin as DerivedMethodMixin
from .derived import DerivedMutable as DerivedMutable
from .dump import DumpChosen as DumpChosen
from .module import MutableModule as MutableModule
from .one_shot_module import OneShotMutableModule as OneShotMutableModule
from .one_shot_op import OneShotMutableOP as OneShotMutableOP
from .sources import find_sources as find_sources
from .value import MutableValue as MutableValue
from .value import OneShotMutableValue as OneShotMutableValue
