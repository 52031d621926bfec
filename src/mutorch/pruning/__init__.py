"""Smaller models: channels ranked, widths chosen under a budget, accuracy brought back."""

from .allocation import ALLOCATIONS as ALLOCATIONS
from .allocation import Allocation as Allocation
from .allocation import by_absolute_score as by_absolute_score
from .allocation import by_ratio as by_ratio
from .allocation import by_score as by_score
from .allocation import uniform as uniform
from .finetune import Distilled as Distilled
from .finetune import Finetune as Finetune
from .gradual import Gradual as Gradual
from .one_by_one import OneByOne as OneByOne
from .prices import Prices as Prices
from .sensitivity import Change as Change
from .sensitivity import Sensitivity as Sensitivity
from .sensitivity import sensitivity as sensitivity
from .shrink import Shrunk as Shrunk
from .shrink import shrink as shrink
