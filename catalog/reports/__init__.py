"""Reports: what a leader reads, made from the executed notebook and the catalog's own record of the run.

``service.Reports`` gathers, renders and caches; ``page.render_html`` and ``pdf.render_pdf`` do the work. All that comes
out of a notebook is hostile: it is cleaned on the way in, and the page is served from an opaque origin
(``page.policy``).
"""
