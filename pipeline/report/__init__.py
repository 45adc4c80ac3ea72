"""Ranked lists in; metrics, plots, tables, figures and one page out."""

from pipeline.report.assemble import Benchmark, ReportInputs, build_report, changed_parameters
from pipeline.report.public import PublicAnswers

__all__ = ["Benchmark", "PublicAnswers", "ReportInputs", "build_report", "changed_parameters"]
