"""Measures the page in Chromium: from a key to its glyph, and output into the terminal.

usage: python -m tests.bench.page [--runs N]

Prints one JSON object. The echo is a real guest's, behind the real services. The flood's source is
synthetic, since a UART gives 0.2 MB/s: a stand-in for supervisor and relay behind the real gateway.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from playwright.sync_api import Page

from serial_console.demo import host
from serial_console.demo.libvirtd import PrivateLibvirtd
from tests import rig
from tests.chromium import launched, status
from tests.stack import Stack

from .rounds import Samples, add

KEYS = 100
PAUSE = 120
"""Milliseconds from key to key, as a person types."""
FLOOD = 100_000_000
"""Bytes; five seconds at the goal of 20 MB/s."""
LINE = bytes(range(0x20, 0x6E)) + b"\r\n"  # 80 bytes

# xterm.js writes the row in a frame's beginning; it is painted at that frame's end.
WATCH_GLYPHS = """
() => {
  window.times = [];
  let pressed = 0;
  addEventListener('keydown', (event) => { pressed = event.timeStamp; }, true);
  new MutationObserver(() => {
    if (pressed) {
      window.times.push(performance.now() - pressed);
      pressed = 0;
    }
  }).observe(document.querySelector('.xterm-rows'), { childList: true, subtree: true });
}
"""
# Until the end is told all output has been given to the terminal but one window.
WATCH_FLOOD = """
() => {
  const times = window.flood = { long: 0 };
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) times.long = Math.max(times.long, duration);
  }).observe({ type: 'longtask' });
  new MutationObserver(() => {
    const { state } = document.getElementById('status').dataset;
    times[state] ??= performance.now();
  }).observe(document.getElementById('status'), { attributes: true });
}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    samples = measure(parser.parse_args().runs)
    spreads = {name: _spread(values) for name, values in samples["ours"].items()}
    print(json.dumps(spreads, indent=2))


def measure(runs: int) -> Samples:
    """Return the samples of so many runs."""
    samples: Samples = {}
    # The services' logs are printed when they end.
    with contextlib.redirect_stdout(io.StringIO()), launched() as browser:
        for _ in range(runs):
            add(samples, "ours", _keys(browser.new_page()) | _flood(browser.new_page()))
    return samples


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = sorted(values)
    return {
        "median": round(statistics.median(found), 2),
        "least": round(found[0], 2),
        "most": round(found[-1], 2),
    }


def _keys(page: Page) -> dict[str, float]:
    with _stack() as (stack, guest):
        with stack.open(guest.uuid) as terminal:
            echoes = sorted(_echo(terminal) for _ in range(KEYS))
        stack.wait_free()
        page.goto(stack.rest("POST", f"/v1/guests/{guest.uuid}/tokens", {})[1]["page_url"])
        status(page).and_(page.locator("[data-state=connected]")).wait_for()
        page.keyboard.type("x")
        page.locator(".xterm-rows", has_text="x").wait_for()
        page.evaluate(WATCH_GLYPHS)
        for _ in range(KEYS):
            page.keyboard.press("k")
            page.wait_for_timeout(PAUSE)  # asking the page whether it is there would cost it frames
        times = sorted(page.evaluate("times"))
        page.close()
        stack.wait_free()
    assert len(times) == KEYS
    return {
        "key_to_glyph_p50_ms": times[len(times) // 2],
        "key_to_glyph_p99_ms": times[-2],
        "websocket_echo_p50_ms": echoes[len(echoes) // 2],
    }


def _echo(terminal: Any) -> float:
    began = time.perf_counter()
    terminal.send(b"k")
    terminal.read_until(b"k")
    return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def _stack() -> Iterator[tuple[Stack, Any]]:
    with (
        host.short_directory("sc-bench-") as directory,
        PrivateLibvirtd(f"{directory}/d") as daemon,
    ):
        factory = rig.GuestFactory(daemon)
        stack = Stack(daemon.uri, directory, directory)
        try:
            guest = factory("echo")
            yield stack.start("supervisor", "gateway", "api"), guest
        finally:
            stack.close()
            factory.close()


def _flood(page: Page) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack("test:///default", directory, directory)
        os.makedirs(stack.control)
        relay = threading.Thread(target=_serve, args=(stack.redeem_path, f"{directory}/relay"))
        relay.start()
        rig.eventually(lambda: os.path.exists(stack.redeem_path))
        try:
            stack.start("gateway")
            page.goto(f"http://127.0.0.1:{stack.gateway_port}/serial.html#token=t&autoconnect=0")
            page.evaluate(WATCH_FLOOD)
            page.click("#action")
            status(page).and_(page.locator("[data-state=ended]")).wait_for(timeout=300_000)
            times = page.evaluate("flood")
        finally:
            page.close()
            relay.join()
            stack.close()
    seconds = (times["ended"] - times["connected"]) / 1000
    return {"mb_per_s": FLOOD / 1e6 / seconds, "longest_task_ms": times["long"]}


def _serve(redeem: str, path: str) -> None:
    """Be supervisor and relay of one session that floods."""
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        door.bind(redeem)
        door.listen()
        back, _ = door.accept()
        with back:
            back.recv(4096)
            _tell(back, ok=True, path=path, session="s", guest="g", console="serial0", mode="rw")
            relay, _ = listener.accept()
            with relay:
                session: dict[str, Any] = {
                    "id": "s",
                    "guest": "g",
                    "uuid": "u",
                    "console": "serial0",
                    "user": "",
                }
                session |= {"mode": "rw", "escape": "", "resume": 0, "relay": "r", "position": 0}
                session |= {"replay": 0, "printed": None, "continued": False}
                _tell(back, op="session", **session)
                _tell(back, op="state", state="connected", text="")
                piece = LINE * (65536 // len(LINE))
                sent = 0
                while sent < FLOOD:
                    relay.sendall(piece)
                    sent += len(piece)
                _tell(back, op="end", code=1000, reason="That was all.", session=None)


def _tell(back: socket.socket, **fields: Any) -> None:
    back.sendall(json.dumps({"v": 1, **fields}).encode() + b"\n")


if __name__ == "__main__":
    main()
