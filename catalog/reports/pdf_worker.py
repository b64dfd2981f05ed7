"""HTML on standard input, an accessible PDF (PDF/UA-1) on standard output. Imports nothing of the project: it runs in
isolation.

Usage: pdf_worker.py MEMORY_BYTES SECONDS. Exit status 3: WeasyPrint's libraries are missing.
"""

import resource
import sys

NO_LIBRARY = 3


def main(memory: int, seconds: int) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except OSError:  # what cffi raises where Pango is not installed
        return NO_LIBRARY
    page = sys.stdin.buffer.read().decode("utf-8")
    fetcher = URLFetcher(allowed_protocols={"data"}, allow_redirects=False)
    document = HTML(string=page, url_fetcher=fetcher, base_url=None)
    sys.stdout.buffer.write(document.write_pdf(pdf_variant="pdf/ua-1"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
