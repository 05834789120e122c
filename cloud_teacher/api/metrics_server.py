"""`/metrics` on a port of its own, for a cloud whose API only its edges may reach.

Not `prometheus_client.start_http_server`: asked for OpenMetrics, as Prometheus asks, it renames what has a colon (`vllm:…`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

SILENCE_S = 10
"""After so long without a whole request a connection is closed."""


@contextmanager
def metrics_port(host: str, port: int | None, registries: Callable[[], list[CollectorRegistry]]) -> Iterator[None]:
    """Serve metrics there and nothing else, in threads of its own; without a port do nothing. Raises OSError.

    Shown is every registry there is when somebody asks: the engine's comes when the teacher is loaded.
    """
    if port is None:
        yield
        return

    class Metrics(BaseHTTPRequestHandler):
        timeout = SILENCE_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            page = b"".join(map(generate_latest, registries()))
            self.send_response(HTTPStatus.OK)
            self.send_header("content-type", CONTENT_TYPE_LATEST)
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingTCPServer):  # http.server's own looks its address up in the DNS first
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        allow_reuse_address = True
        daemon_threads = True

    with Server((host, port), Metrics) as server:
        thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
