"""What plug-ins and models are tested with, and small real data to test on."""

from .check_export import check_export as check_export
from .check_pool import check_pool as check_pool
from .detection_digits import DetectionDigits as DetectionDigits
from .detection_digits import DetectionSet as DetectionSet
from .detection_digits import collate_detection as collate_detection
from .digits import ClutteredDigits as ClutteredDigits
from .op_suite import OpSuite as OpSuite
from .strategy_suite import StrategySuite as StrategySuite
from .strategy_suite import check_strategy as check_strategy
