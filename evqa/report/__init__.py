"""Tables for the terminal and for papers, the evidence page, and figures of single entries."""

from evqa.report.figure import write_figure
from evqa.report.page import write_report
from evqa.report.table import breakdown_table, compare_latex, compare_table, score_table, to_json

__all__ = [
    "breakdown_table", "compare_latex", "compare_table", "score_table", "to_json", "write_figure", "write_report",
]  # fmt: skip
