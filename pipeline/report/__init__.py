"""Ranked lists in; metrics, plots, tables, figures and one page out."""

from pipeline.report.assemble import BenchmarkPaths, ReportInputs, build_report, changed_parameters
from pipeline.report.public import PublicSplitPaths

__all__ = ["BenchmarkPaths", "PublicSplitPaths", "ReportInputs", "build_report", "changed_parameters"]
