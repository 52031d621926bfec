"""Which channels of a model belong together, and the units that decide how many are kept."""

from .mode import ModeError as ModeError
from .mode import in_mode as in_mode
from .mode import set_mode_ as set_mode_
from .one_shot_unit import OneShotMutableChannelUnit as OneShotMutableChannelUnit
from .report import ChannelReport as ChannelReport
from .report import report as report
from .rules import register_label_rule as register_label_rule
from .searchable import EmptySpaceError as EmptySpaceError
from .searchable import ObserveError as ObserveError
from .searchable import searchable as searchable
from .unit import MutableChannelUnit as MutableChannelUnit
from .widths import widths as widths
