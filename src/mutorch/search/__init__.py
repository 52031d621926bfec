"""Find architectures under a budget: ask, evaluate, tell, log."""

from .cost_loss import cost_loss as cost_loss
from .expected_cost import expected_cost as expected_cost
from .feasible import Feasible as Feasible
from .greedy_slim import GreedySlimming as GreedySlimming
from .greedy_slim import Slimmed as Slimmed
from .greedy_slim import greedy_slim as greedy_slim
from .history import History as History
from .history import Trial as Trial
from .sample_widths import expected_widths as expected_widths
from .sample_widths import sample_widths as sample_widths
from .search import search as search
from .strategies import Evolution as Evolution
from .strategies import RandomSearch as RandomSearch
from .strategies import Strategy as Strategy
from .strategies import StrategyFactory as StrategyFactory
