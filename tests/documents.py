"""What a document tells people to type, for the tests that type it."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
_BLOCK = re.compile(
    r"^<!-- block: (?P<name>[\w-]+) -->\n+```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(path: str) -> dict[str, str]:
    """Return the named blocks of a document, such as ``docs/install.md``.

    A block is fenced, and the line before its fence is ``<!-- block: NAME -->``.
    """
    text = (ROOT / path).read_text("utf-8")
    return {found["name"]: found["text"] for found in _BLOCK.finditer(text)}


def block(path: str, name: str) -> str:
    """Return the text of one block; raises KeyError where the document has none of that name."""
    return blocks(path)[name]
