"""Tables for the terminal and for papers, the evidence page, and figures of single entries."""

from evqa.report.comparison import Comparison, compare_systems
from evqa.report.figure import write_figure
from evqa.report.page import write_report
from evqa.report.table import breakdown_table, score_table, to_json

__all__ = [
    "Comparison", "breakdown_table", "compare_systems", "score_table", "to_json", "write_figure", "write_report",
]  # fmt: skip
