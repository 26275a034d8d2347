"""The page's terminal shows what a reference terminal shows, cell by cell: tests/corpus.py."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
from typing import Any

import pytest

from serial_console.terminal import without_queries
from tests import node, screens
from tests.corpus import CORPUS

SHOW = """
async (corpus) => {
  const { cells } = await import('/cells.mjs');
  const shown = {};
  show.setSize(80, 24);
  for (const [name, pieces] of Object.entries(corpus)) {
    show.terminal.reset();
    for (const piece of pieces) {
      show.write(Uint8Array.from(atob(piece), (char) => char.charCodeAt(0)));
    }
    await new Promise((done) => show.write(new Uint8Array(), done));
    shown[name] = cells(show.terminal);
  }
  return shown;
}
"""


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def in_pieces(data: bytes, chosen: random.Random) -> list[str]:
    """Return it split anywhere, within characters and sequences too."""
    cuts = sorted(chosen.randrange(len(data)) for _ in range(len(data) // 5 + 1))
    ends = zip([0, *cuts], [*cuts, len(data)], strict=True)
    return [encoded(data[start:end]) for start, end in ends]


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """What the reference shows of each item."""
    command = [node.node(), os.path.join(node.ROOT, "tests", "reference.mjs"), node.module("")]
    corpus = {name: encoded(data) for name, data in CORPUS.items()}
    done = subprocess.run(
        command, input=json.dumps(corpus).encode(), capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_all_cells_are_as_in_the_reference_terminal(browser, reference):
    """However the output is cut, and after a replay, from which the relay takes the queries."""
    chosen = random.Random(7)
    with screens.served() as url, browser.new_page() as page:
        screens.open_screen(page, url, renderer="dom")
        shows = {
            "at once": {name: [encoded(data)] for name, data in CORPUS.items()},
            "in pieces": {name: in_pieces(data, chosen) for name, data in CORPUS.items()},
            "as replay": {name: [encoded(without_queries(data))] for name, data in CORPUS.items()},
        }
        wrong = []
        for how, corpus in shows.items():
            shown = page.evaluate(SHOW, corpus)
            assert shown.keys() == reference.keys()
            wrong += [
                f"{name}, {how}: {difference(shown[name], expected)}"
                for name, expected in reference.items()
                if shown[name] != expected
            ]
        assert not wrong, "\n".join(wrong)
        assert page.evaluate("seen.violations") == []


def difference(shown: dict[str, Any], expected: dict[str, Any]) -> str:
    """Return where the two differ first."""
    for key in ("cursor", "modes"):
        if shown[key] != expected[key]:
            return f"{key}: {shown[key]}, not {expected[key]}"
    for screen, wanted in zip(shown["lines"], expected["lines"], strict=False):
        for y, (line, right) in enumerate(zip(screen, wanted, strict=False)):
            for x, (cell, good) in enumerate(zip(line, right, strict=False)):
                if cell != good:
                    return f"line {y}, column {x}: {cell!r}, not {good!r}"
    return "another number of lines"
