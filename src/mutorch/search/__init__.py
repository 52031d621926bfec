"""Find architectures under a budget: ask, evaluate, tell, log."""

from .cost_loss import cost_loss as cost_loss
from .dominance import crowding as crowding
from .dominance import front_ranks as front_ranks
from .dominance import hypervolume as hypervolume
from .evaluation import Evaluation as Evaluation
from .evaluation import Outcome as Outcome
from .expected_cost import expected_cost as expected_cost
from .feasible import Feasible as Feasible
from .greedy_slim import GreedySlimming as GreedySlimming
from .greedy_slim import Slimmed as Slimmed
from .greedy_slim import greedy_slim as greedy_slim
from .history import History as History
from .history import Trial as Trial
from .pools import InProcess as InProcess
from .pools import Pool as Pool
from .pools import PoolFactory as PoolFactory
from .sample_widths import expected_widths as expected_widths
from .sample_widths import sample_widths as sample_widths
from .search import AHEAD as AHEAD
from .search import search as search
from .search import search_space as search_space
from .strategies import Evolution as Evolution
from .strategies import RandomSearch as RandomSearch
from .strategies import Strategy as Strategy
from .strategies import StrategyFactory as StrategyFactory
