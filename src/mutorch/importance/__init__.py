"""Which channels matter: rankings of a unit's channels, and the order that follows from them."""

from .group_fisher import GroupFisher as GroupFisher
from .magnitude import L1 as L1
from .magnitude import L2 as L2
from .mask_gradients import MaskGradients as MaskGradients
from .norm_scale import BatchNormScale as BatchNormScale
from .random_scores import Random as Random
from .rank import Importance as Importance
from .rank import rank_ as rank_
from .taylor import Taylor as Taylor
