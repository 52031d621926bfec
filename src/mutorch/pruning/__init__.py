"""Smaller models: channels ranked, widths chosen under a budget, accuracy brought back."""

from .allocation import ALLOCATIONS as ALLOCATIONS
from .allocation import Allocation as Allocation
from .allocation import by_score as by_score
from .allocation import uniform as uniform
from .finetune import Distilled as Distilled
from .finetune import Finetune as Finetune
from .prices import Prices as Prices
from .shrink import Shrunk as Shrunk
from .shrink import shrink as shrink
