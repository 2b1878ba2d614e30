"""Checks of subjects before training: findings with levels and mends, as text, JSON and a page."""

from patchflow.quality.check import check_subjects, run_check
from patchflow.quality.findings import CHECKS, Finding
from patchflow.quality.report import Report

__all__ = ["CHECKS", "Finding", "Report", "check_subjects", "run_check"]
