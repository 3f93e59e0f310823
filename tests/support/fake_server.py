"""A single-user server that starts in no time and can do nothing but answer: for tests that start many.

FAKE_DELAY: seconds before it listens.
"""

import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    """Answers `<its own prefix>api` with its pid."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(os.getpid()).encode()
        self.send_response(200 if self.path == os.environ["JUPYTERHUB_SERVICE_PREFIX"] + "api" else 404)
        self.send_header("Content-Length", str(len(body)))
        # As the real one does: JupyterHub looks for it.
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def main() -> None:
    time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
    url = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    ThreadingHTTPServer((url.hostname or "127.0.0.1", url.port or 80), Handler).serve_forever()


if __name__ == "__main__":
    main()
