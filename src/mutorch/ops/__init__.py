"""Modules that compute with the active part of their tensors."""

from .dynamic import DynamicState as DynamicState
from .dynamic import Execution as Execution
from .dynamic import FollowedSize as FollowedSize
from .dynamic import dynamic_modules as dynamic_modules
from .dynamic import make_dynamic_ as make_dynamic_
from .extent import Extent as Extent
