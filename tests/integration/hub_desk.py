"""A stand-in for a desk: leaves the token that the Hub gave it in a file, and answers."""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


address = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
server = HTTPServer((address.hostname or "127.0.0.1", address.port or 0), Handler)
name = os.environ["JUPYTERHUB_SERVER_NAME"]
draft = Path(sys.argv[1]) / f".desk-{name}"
draft.write_text(os.environ["JUPYTERHUB_API_TOKEN"])
draft.rename(Path(sys.argv[1]) / f"desk-{name}")
server.serve_forever()
