"""A package index on loopback (PEP 503) whose files can be good, wrong, cut, withheld or slow."""

from __future__ import annotations

import io
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Gate:
    """Holds a response half-way: `reached` tells that half was sent, `opened` lets the rest go."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)


@dataclass
class PackageIndex:
    """`wheels` by package name. A package in `cut` ends its connection half-way; one in `gates` waits there."""

    url: str
    wheels: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    gates: dict[str, Gate] = field(default_factory=dict)
    fetched: Counter[str] = field(default_factory=Counter)
    """How often each package's wheel was asked for."""

    def put(self, package: str, content: bytes) -> None:
        """Publish a wheel that holds `content` as its `data/part.bin`."""
        self.wheels[package] = wheel(package, content)


def wheel(package: str, content: bytes) -> bytes:
    name = package.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/data/part.bin", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


@contextmanager
def serving() -> Iterator[PackageIndex]:
    """An empty index that listens until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, package, *_ = [*self.path.strip("/").split("/"), ""]
            if package not in index.wheels:
                self.send_error(404)
            elif kind == "simple":
                file = f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
                self._send(f'<a href="/files/{package}/{file}">{file}</a>'.encode(), "text/html")
            else:
                index.fetched[package] += 1
                self._send(index.wheels[package], "application/octet-stream", package)

        def _send(self, body: bytes, content_type: str, package: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            half = len(body) // 2
            self.wfile.write(body[:half])
            if package in index.cut:
                return
            if gate := index.gates.get(package):
                self.wfile.flush()
                gate.reached.set()
                gate.opened.wait()
            try:
                self.wfile.write(body[half:])
            except OSError:  # whoever asked was killed
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = PackageIndex(f"http://127.0.0.1:{server.server_port}/simple")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield index
        finally:
            for gate in index.gates.values():
                gate.opened.set()
            server.shutdown()
            thread.join()
