"""A fake gateway, within the browser: for states that a real one is slow to reach."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Page, WebSocketRoute

from . import rig

SESSION = {
    "id": "s1",
    "guest": "web-01",
    "uuid": "6f1c1ae2-3c6b-4b43-9d0b-0f6c1f0f8a11",
    "console": "serial0",
    "user": "alice",
    "mode": "rw",
    "escape": "ctrl-q",
    "resume": 0,
    "relay": "r1",
    "position": 0,
    "replay": 0,
    "printed": None,
    "continued": False,
}


class FakeGateway:
    """Answers the page's WebSocket. To be made before the page is opened.

    Args:
        page: whose.
        attach: whether a session begins at once.
        session: what differs from SESSION.
    """

    def __init__(self, page: Page, *, attach: bool = True, **session: Any) -> None:
        self._page = page
        self._attach = attach
        self._session = SESSION | session
        self.socket: WebSocketRoute | None = None
        self.typed = b""
        page.route_web_socket(re.compile("/websockify"), self._serve)

    def _serve(self, socket: WebSocketRoute) -> None:
        self.socket = socket
        socket.on_message(self._hear)
        if self._attach:
            self.attach()

    def _hear(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.typed += message

    def attach(self, **session: Any) -> None:
        """Begin a session; ``session`` is what differs from the gateway's own."""
        if self.socket is None:  # the page is on its way
            assert rig.eventually(self._connected)
        self.tell(op="session", **self._session | session)
        self.tell(op="state", state="connected", text="")

    def tell(self, **event: Any) -> None:
        """Send an event of serial-console.v1."""
        assert self.socket is not None
        self.socket.send(json.dumps({"v": 1, **event}))

    def print(self, output: bytes) -> None:
        """Send output of the guest."""
        assert self.socket is not None
        self.socket.send(output)

    def close(self, code: int, reason: str) -> None:
        """End the session."""
        assert self.socket is not None
        self.socket.close(code=code, reason=reason)
        self.socket = None

    def _connected(self) -> bool:
        self._page.wait_for_timeout(1)  # in which Playwright tells of it
        return self.socket is not None
