"""A report as an accessible PDF, made by WeasyPrint in a process of its own.

The page holds pictures from a sandbox, and a picture can be built to eat memory or time. The process has limits on
both, gets the page on its standard input and can fetch nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from catalog.reports.page import render_html
from catalog.reports.pdf_worker import NO_LIBRARY
from catalog.reports.source import ReportSource, ReportUnavailable

MEMORY_BYTES = 2 * 1024**3  # of address space; a plain report needs a tenth
SECONDS = 60
WORKER = Path(__file__).with_name("pdf_worker.py")


def render_pdf(source: ReportSource) -> bytes:
    """Return the report as PDF. Raise ReportUnavailable if WeasyPrint's libraries are missing or the page is too much
    for it.
    """
    return print_page(render_html(source, paper=True))


def print_page(page: bytes, *, memory: int = MEMORY_BYTES, seconds: int = SECONDS) -> bytes:
    """Return an HTML page as PDF; raises as ``render_pdf``."""
    command = [sys.executable, "-I", str(WORKER), str(memory), str(seconds)]
    try:
        done = subprocess.run(command, input=page, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ReportUnavailable(
            f"The PDF was not ready within {seconds} seconds. Read the report as a web page instead."
        ) from None
    if done.returncode == NO_LIBRARY:
        missing = (
            "PDF needs WeasyPrint's libraries: install libpango-1.0-0, libpangoft2-1.0-0 and libharfbuzz-subset0. "
            "The web page works without."
        )
        raise ReportUnavailable(missing)
    if done.returncode or not done.stdout.startswith(b"%PDF"):
        raise ReportUnavailable("The PDF could not be made of this report. Read it as a web page instead.")
    return done.stdout
