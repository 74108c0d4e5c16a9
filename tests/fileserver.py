"""A web server for downloads: ranges, ETags, and faults that a test asks for."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PIECE = 64 * 1024


class FileServer(ThreadingHTTPServer):
    """Serves one body under every path, and notes the Range of every request."""

    daemon_threads = True

    def __init__(self, body: bytes, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.body, self.etag, self.ranges = body, '"v1"', True
        self.status = 200
        self.breaks: list[int] = []
        """After how many bytes of the body the next answers break off, one number each."""
        self.short: list[int] = []
        """How many bytes of what is asked for the next answers to ranges have, one number each."""
        self.pause = 0.0
        """Seconds before each piece of 64 KiB."""
        self.hold = threading.Event()
        """While it is set, a piece waits."""
        self.seen: list[str | None] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients hang up."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.clear()
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.seen.append(wanted)
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if server.status != 200:
            self.send_response(server.status)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"gone")
            return
        if start >= len(server.body) > 0:
            self.send_error(416)
            return
        body = server.body[start:]
        if start and server.short:
            body = body[: server.short.pop(0)]
        self.send_response(206 if start else 200)
        if start:
            end = start + len(body) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(server.body)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        end = server.breaks.pop(0) if server.breaks else len(body)
        for at in range(0, min(end, len(body)), PIECE):
            time.sleep(server.pause)
            while server.hold.is_set():
                time.sleep(0.01)
            self.wfile.write(body[at : min(at + PIECE, end)])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass
