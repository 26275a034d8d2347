"""Chromium by its DevTools protocol alone: Playwright never lets a page be hidden."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

from . import rig
from .chromium import FLAGS


class Tab:
    """A tab of a browser of its own."""

    def __init__(self, socket: ClientConnection, url: str) -> None:
        self._socket = socket
        self._sent = 0
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

        self.send("Page.enable")
        self.send("Page.navigate", url=url)
        while json.loads(socket.recv(timeout=60)).get("method") != "Page.loadEventFired":
            pass

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, return its result."""
        self._sent += 1
        call = {"id": self._sent, "method": method, "params": params, "sessionId": self._session}
        self._socket.send(json.dumps({key: value for key, value in call.items() if value}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, a promise's when it is there."""
        result = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def hide(self) -> None:
        """Have another tab in front of it."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.send("Target.activateTarget", targetId=target)


@contextlib.contextmanager
def tab(url: str) -> Iterator[Tab]:
    """A tab, until the end of the context."""
    chromium = shutil.which("chromium")
    if chromium is None:
        rig.missing("there is no chromium here; run 'make setup'")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium, "--headless", *FLAGS, "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": profile},  # it leaves a directory there when it is ended
        )
        try:
            assert process.stderr is not None
            address = next(filter(None, (re.search(r"ws://\S+", line) for line in process.stderr)))
            with connect(address[0], max_size=None) as socket:
                made = Tab(socket, url)
                yield made
                made._session = None
                made.send("Browser.close")
        finally:
            process.terminate()
            process.communicate()
