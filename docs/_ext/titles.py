"""Shows a page's title where a link has its file's name: that is for who reads the source."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_BY_NAME = re.compile(r"\[([\w-]+\.md)\]\((\1(?:#[\w-]+)?)\)")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register it."""
    app.connect("source-read", _name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _name(_: Sphinx, __: str, source: list[str]) -> None:
    source[0] = _BY_NAME.sub(r"[](\2)", source[0])
