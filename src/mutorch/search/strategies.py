"""The strategies that have a name."""

from mutorch.errors import ConfigError, nearest

from .evolution import Evolution as Evolution
from .feasible import Feasible
from .local_search import LocalSearch as LocalSearch
from .optuna_strategy import OptunaStrategy as OptunaStrategy
from .predictor_guided import PredictorGuided as PredictorGuided
from .random_search import RandomSearch as RandomSearch
from .regularized_evolution import RegularizedEvolution as RegularizedEvolution
from .strategy import Strategy as Strategy
from .strategy import StrategyFactory as StrategyFactory


def _sampler(name: str) -> StrategyFactory:
    def optuna_strategy(feasible: Feasible, seed: int) -> Strategy:
        return OptunaStrategy(feasible, seed, sampler=name)

    return optuna_strategy


STRATEGIES: dict[str, StrategyFactory] = {
    "evolution": Evolution,
    "random": RandomSearch,
    "regularized": RegularizedEvolution,
    "local": LocalSearch,
    "predictor": PredictorGuided,
    "nsga2": _sampler("nsga2"),
    "nsga3": _sampler("nsga3"),
    "tpe": _sampler("tpe"),
    "cmaes": _sampler("cmaes"),
}
"""The strategies that `search` knows by name; the last four need Optuna, which is imported when one of them is made."""


def make_strategy(strategy: str | StrategyFactory, feasible: Feasible, seed: int) -> Strategy:
    """The strategy of that name, or made by that function.

    Errors:
        ConfigError: an unknown name.
    """
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            raise ConfigError(f"no strategy {strategy!r}; {nearest(strategy, STRATEGIES)}")
        strategy = STRATEGIES[strategy]
    return strategy(feasible, seed)
