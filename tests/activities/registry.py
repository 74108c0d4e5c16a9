"""A registry that images can be pulled from: just enough of its protocol, on the loopback."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.services import BUSYBOX

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blobs() -> tuple[bytes, dict[str, bytes]]:
    """Return a manifest, and everything by its digest."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("busybox", "sleep"):
            tar.add(BUSYBOX, f"bin/{name}")
    packed = gzip.compress(layer.getvalue())
    about = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sleep", "600"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
    }
    config = json.dumps(about).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(config),
                "digest": _digest(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "size": len(packed),
                    "digest": _digest(packed),
                }
            ],
        }
    ).encode()
    return manifest, {_digest(data): data for data in (manifest, config, packed)}


@contextmanager
def registry() -> Iterator[str]:
    """Serve one image, ``app:1``; yield the registry's address."""
    manifest, blobs = _blobs()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            if self.path == "/v2/":
                self._send(b"{}", "application/json")
            elif self.path == "/v2/app/manifests/1":
                self._send(manifest, _MANIFEST)
            elif name in blobs:
                self._send(blobs[name], _MANIFEST if blobs[name] is manifest else "application/octet-stream")
            else:
                body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
                self._send(json.dumps(body).encode(), "application/json", 404)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def _send(self, data: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", _digest(data))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
