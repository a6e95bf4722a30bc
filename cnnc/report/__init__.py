"""What a person wants to see of a run: plots, and report.html, which shows all of it in one file."""

from cnnc.report.writing import PLOTS, REPORT, Reported, RunReport, write_report

__all__ = ["PLOTS", "REPORT", "Reported", "RunReport", "write_report"]
