"""One architecture for the whole model."""

from .active import active_modules as active_modules
from .active import inactive_parameters as inactive_parameters
from .arch_params import ArchParams as ArchParams
from .arch_params import NoArchParamsError as NoArchParamsError
from .channel_mutator import ChannelMutator as ChannelMutator
from .groups import CustomGroups as CustomGroups
from .groups import Place as Place
from .groups import find_places as find_places
from .groups import group as group
from .groups import walk as walk
from .mutator import Mutator as Mutator
from .mutator import unwrap as unwrap
