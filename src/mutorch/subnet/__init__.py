"""Subnets: exported as plain models, saved, loaded, compared."""

from .candidates import Candidates as Candidates
from .check import Check as Check
from .check import check as check
from .compare import Comparison as Comparison
from .compare import compare as compare
from .export import export as export
from .export import record_of as record_of
from .files import load as load
from .files import read_record as read_record
from .files import save as save
from .fix_subnet import FixMutable as FixMutable
from .fix_subnet import ValidFixMutable as ValidFixMutable
from .fix_subnet import convert_fix_subnet as convert_fix_subnet
from .fix_subnet import export_fix_subnet as export_fix_subnet
from .fix_subnet import load_fix_subnet as load_fix_subnet
from .freeze import freeze as freeze
from .latency import LatencyRunner as LatencyRunner
from .latency_table import latency_table as latency_table
from .programs import save_program as save_program
from .programs import to_onnx as to_onnx
from .remeasure import Remeasured as Remeasured
from .remeasure import remeasure as remeasure
from .shrink_like import shrink_like as shrink_like
from .subnet_latency import SubnetLatency as SubnetLatency
