"""Decisions as plain data: what may be chosen, and the operations on a whole choice. No torch here."""

from .decision import Architecture as Architecture
from .decision import Choice as Choice
from .decision import Decision as Decision
from .rng import RandomSource as RandomSource
from .rng import as_random as as_random
from .rng import random_at as random_at
from .search_space import SearchSpace as SearchSpace
