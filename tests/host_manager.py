"""A host manager (a stand-in): pages of its own origin, and tokens for them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


class HostManager:
    """Serves what ``files`` holds by name, under the policy ``csp``.

    Args:
        token: gives the answer to ``POST /token``.
    """

    def __init__(self, token: Callable[[], dict[str, object]]) -> None:
        self.token = token
        self.files: dict[str, bytes] = {"favicon.ico": b""}
        self.csp = ""
        self.origin = ""

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the end of the context."""
        manager = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/").partition("?")[0]
                content = manager.files.get(name)
                kind = TYPES.get(name.rpartition(".")[2], "text/plain")
                self._answer(404 if content is None else 200, kind, content or b"")

            def do_POST(self) -> None:
                self._answer(201, "application/json", json.dumps(manager.token()).encode())

            def _answer(self, code: int, kind: str, content: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                if manager.csp:
                    self.send_header("Content-Security-Policy", manager.csp)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.origin = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()
