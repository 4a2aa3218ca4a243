"""The report: one self-contained HTML page, for a privacy officer first and an engineer second."""

from common.evaluation.report.page import ReleaseView, write_report
from common.evaluation.report.summary import map_facts, neighbor_lists

__all__ = ["ReleaseView", "map_facts", "neighbor_lists", "write_report"]
