"""Which channels of a model belong together, and the units that decide how many are kept."""

from .analyzer import ChannelAnalyzer as ChannelAnalyzer
from .channel import Channel as Channel
from .channel_unit import ChannelUnit as ChannelUnit
from .dcff_unit import DCFFChannelUnit as DCFFChannelUnit
from .depth import depth as depth
from .dmcp_unit import DMCPChannelUnit as DMCPChannelUnit
from .l1_unit import L1MutableChannelUnit as L1MutableChannelUnit
from .mode import ModeError as ModeError
from .mode import in_mode as in_mode
from .mode import set_mode_ as set_mode_
from .one_shot_unit import OneShotMutableChannelUnit as OneShotMutableChannelUnit
from .prepare import UnsupportedChannelError as UnsupportedChannelError
from .report import ChannelReport as ChannelReport
from .report import report as report
from .rules import register_label_rule as register_label_rule
from .searchable import EmptySpaceError as EmptySpaceError
from .searchable import ObserveError as ObserveError
from .searchable import searchable as searchable
from .sequential_unit import SequentialMutableChannelUnit as SequentialMutableChannelUnit
from .slimmable_unit import SlimmableChannelUnit as SlimmableChannelUnit
from .unit import MutableChannelUnit as MutableChannelUnit
from .widths import widths as widths
