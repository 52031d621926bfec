"""Which channels of a model belong together, and the units that decide how many are kept."""

from .one_shot_unit import OneShotMutableChannelUnit as OneShotMutableChannelUnit
from .rules import register_label_rule as register_label_rule
from .searchable import EmptySpaceError as EmptySpaceError
from .searchable import ObserveError as ObserveError
from .searchable import searchable as searchable
from .unit import MutableChannelUnit as MutableChannelUnit
from .widths import widths as widths
