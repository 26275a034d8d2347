"""Our page in Debian's Firefox, over WebDriver BiDi; Playwright's needs a Firefox of its own."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from . import rig

START = 60.0
"""Seconds that Firefox may take to start on a busy machine."""
ANSWER = 30.0
"""The same to answer a command."""
SWITCHED_ON = [
    "network.dns.disabled",  # so it reaches nobody but us, whatever it wants to look up
    "webgl.disabled",  # what a canvas shows cannot be read
]


class Tab:
    """A tab, what its page complained of and what it asked for."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        """Errors and warnings, what the policy forbids among them."""
        self.requests: list[str] = []
        """URLs."""
        self._command("session.new", capabilities={})
        self._command("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self._context = self._command("browsingContext.create", type="tab")["context"]

    def open(self, url: str) -> None:
        """Load a page."""
        self._command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression is in the page, as JSON has it."""
        answer = self._command(
            "script.evaluate",
            expression=f"JSON.stringify({expression})",
            target={"context": self._context},
            awaitPromise=False,
        )
        assert answer["type"] == "success", answer
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)

    def wait(self, expression: str, value: Any = True, seconds: float = 30.0) -> None:
        """Wait until an expression has a value."""
        seen: list[Any] = []

        def there() -> bool:
            seen[:] = [self.evaluate(expression)]
            return bool(seen == [value])

        assert rig.eventually(there, seconds), f"{expression} is {seen[0]!r}; {self.complaints}"

    def type(self, text: str) -> None:
        """Press the key of each character."""
        actions = [
            {"type": kind, "value": character}
            for character in text
            for kind in ("keyDown", "keyUp")
        ]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self._command("input.performActions", context=self._context, actions=[keyboard])

    def screenshot(self, path: str) -> None:
        """Save what is to be seen as a PNG."""
        answer = self._command("browsingContext.captureScreenshot", context=self._context)
        with open(path, "wb") as file:
            file.write(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """Close the tab."""
        self._command("browsingContext.close", context=self._context)

    def quit(self) -> None:
        """End Firefox."""
        self._command("browser.close")

    def _command(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (message := json.loads(self._socket.recv(ANSWER))).get("id") != number:
            self._note(message["method"], message["params"])
        assert message["type"] == "success", f"{method}: {message}"
        result: dict[str, Any] = message["result"]
        return result

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "network.beforeRequestSent":
            self.requests.append(params["request"]["url"])
        elif event == "log.entryAdded" and params["level"] in ("error", "warn"):
            self.complaints.append(params["text"])


@contextlib.contextmanager
def launched() -> Iterator[Tab]:
    """Firefox with a new profile and one tab, until the end of the context.

    The one prerequisite that may be absent anywhere: not every system like Debian has the package.
    """
    path = shutil.which("firefox-esr")
    if path is None:
        pytest.skip("there is no firefox-esr here")
    with tempfile.TemporaryDirectory(prefix="sc-firefox-") as directory:
        home = Path(directory)
        profile, log = home / "profile", home / "log"
        profile.mkdir()
        lines = [f"user_pref({json.dumps(name)}, true);\n" for name in SWITCHED_ON]
        (profile / "user.js").write_text("".join(lines))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [path, "--headless", "--profile", profile, "--remote-debugging-port=0"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "HOME": directory, "MOZ_CRASHREPORTER_DISABLE": "1"},
            )
        try:
            url = f"{_listening(log)}/session"
            with connect(url, compression=None, proxy=None, max_size=None) as socket:
                tab = Tab(socket)
                yield tab
                tab.quit()
            process.wait(ANSWER)
        finally:
            process.kill()
            process.wait()


def _listening(log: Path) -> str:
    """Return the address at which Firefox takes commands, once it says so."""
    found: list[str] = []

    def said() -> bool:
        found[:] = re.findall(r"WebDriver BiDi listening on (ws://\S+)\n", log.read_text())
        return bool(found)

    assert rig.eventually(said, START), log.read_text()
    return found[0]
