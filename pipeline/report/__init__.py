"""Ranked lists in; metrics, plots, tables, figures and one page out."""

from pipeline.report.build import Benchmark, ReportInputs, build_report, changed_parameters

__all__ = ["Benchmark", "ReportInputs", "build_report", "changed_parameters"]
