"""Tables for the terminal, and the evidence page."""

from evqa.report.comparison import Comparison, compare_systems
from evqa.report.page import write_report
from evqa.report.table import breakdown_table, score_table, to_json

__all__ = ["Comparison", "breakdown_table", "compare_systems", "score_table", "to_json", "write_report"]
