"""Tables for the terminal, and the evidence page."""

from evqa.report.page import write_report
from evqa.report.table import breakdown_table, compare_table, score_table, to_json

__all__ = ["breakdown_table", "compare_table", "score_table", "to_json", "write_report"]
