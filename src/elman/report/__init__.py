"""A comparison → one self-contained HTML page. Reading order: figures, sections, page."""

from __future__ import annotations

from elman.report.page import embedded as embedded
from elman.report.page import render as render
from elman.report.page import write_report as write_report
