"""Find architectures under a budget: ask, evaluate, tell, log."""

from .expected_cost import expected_cost as expected_cost
from .feasible import Feasible as Feasible
from .history import History as History
from .history import Trial as Trial
from .search import search as search
from .strategies import Evolution as Evolution
from .strategies import RandomSearch as RandomSearch
from .strategies import Strategy as Strategy
from .strategies import StrategyFactory as StrategyFactory
