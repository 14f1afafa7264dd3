"""A webhook receiver: `python receiver.py PORT FILE` appends every event it is sent to FILE, one a line."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Receiver(BaseHTTPRequestHandler):
    """Takes what is posted."""

    file = Path()

    def do_POST(self) -> None:
        """Keep one event, then say so."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with self.file.open("ab") as file:
            file.write(body.replace(b"\n", b" ") + b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    Receiver.file = Path(sys.argv[2])
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Receiver).serve_forever()


if __name__ == "__main__":
    main()
