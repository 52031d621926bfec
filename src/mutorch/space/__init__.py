"""Decisions as plain data: what may be chosen, and the operations on a whole choice. No torch here."""

from .arithmetic import Operators as Operators
from .decision import Architecture as Architecture
from .decision import Choice as Choice
from .decision import Decision as Decision
from .expression import Expression as Expression
from .expression import Operation as Operation
from .expression import Ref as Ref
from .functions import case as case
from .functions import condition as condition
from .functions import maximum as maximum
from .functions import minimum as minimum
from .functions import switch_case as switch_case
from .functions import to_float as to_float
from .functions import to_int as to_int
from .rng import RandomSource as RandomSource
from .rng import as_random as as_random
from .rng import random_at as random_at
from .search_space import SearchSpace as SearchSpace
