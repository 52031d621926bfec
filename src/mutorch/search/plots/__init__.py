"""Figures of a search: matplotlib `Figure`s, to show, save or go on with. Need the extra `report`."""

from .front import pareto_figure as pareto_figure
from .importance import importance as importance
from .parallel import parallel_figure as parallel_figure
from .preferences import Preference as Preference
from .preferences import preference_figure as preference_figure
from .preferences import preferences as preferences
from .progress import progress_figure as progress_figure
from .quantities import Searched as Searched
from .volume import hypervolume_figure as hypervolume_figure
