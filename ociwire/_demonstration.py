"""A registry of blobs on loopback, just large enough to push one and pull it back: for the command without arguments.

It is a real server behind a real socket, so that what is shown is what the wire does. It keeps everything in memory,
and knows no manifests, tags or credentials.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["serve_blobs"]


@contextmanager
def serve_blobs() -> Iterator[str]:
    """Serve an empty registry of blobs on a free port of 127.0.0.1; yields its ``host:port``."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="ociwire demonstration")
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.blobs: dict[str, bytes] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        self._answer(202, {"Location": f"{urlsplit(self.path).path}1"})

    def do_PUT(self) -> None:
        # http.server has sent the 100 (Continue) that the client waits for by the time it gets here.
        content = self.rfile.read(int(self.headers["Content-Length"]))
        target = urlsplit(self.path)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if parse_qs(target.query).get("digest") != [digest]:
            self._answer(400, {"Content-Type": "application/json"}, b'{"errors": [{"code": "DIGEST_INVALID"}]}')
            return
        blob = f"{target.path.rpartition('/uploads/')[0]}/{digest}"
        self.server.blobs[blob] = content
        self._answer(201, {"Location": blob})

    def do_GET(self) -> None:
        content = self.server.blobs.get(self.path)
        if content is None:
            self._answer(404, {"Content-Type": "application/json"}, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
        else:
            self._answer(200, {"Content-Type": "application/octet-stream"}, content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass  # the conversation is told from the client's side
