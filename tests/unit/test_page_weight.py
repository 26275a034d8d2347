"""The page is light: it is for slow lines too."""

from __future__ import annotations

import gzip
import os

from tests import node

LIMIT = 250_000
"""Bytes of all that is served, compressed."""


def test_the_page_is_under_its_limit() -> None:
    sizes = {}
    for directory, inner, names in os.walk(node.WEB):
        inner[:] = [name for name in inner if name != "node_modules"]
        for name in names:
            if name.endswith((".html", ".css", ".js")):
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    sizes[os.path.relpath(path, node.WEB)] = len(gzip.compress(file.read(), 9))
    assert "vendor/xterm.js" in sizes
    largest = sorted(sizes.items(), key=lambda item: item[1])[-5:]
    print(f"{sum(sizes.values())} bytes compressed in {len(sizes)} files")
    assert sum(sizes.values()) < LIMIT, largest
