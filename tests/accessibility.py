"""What axe-core finds against WCAG 2.2 AA in a page."""

from __future__ import annotations

import functools
from typing import Any

from playwright.sync_api import Page

from . import node

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def violations(page: Page) -> list[str]:
    """Return a line for each element that breaks a rule: the rule, the element, what is wrong."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())  # as the debugger does: our policy lets no page load it
    found: dict[str, Any] = page.evaluate(
        "(tags) => axe.run({ runOnly: tags, resultTypes: ['violations'], preload: false })", TAGS
    )
    return [
        f"{rule['id']} ({rule['impact']}): {' '.join(map(str, where['target']))}: "
        + " ".join(where["failureSummary"].split())
        for rule in found["violations"]
        for where in rule["nodes"]
    ]


@functools.cache
def _axe() -> str:
    with open(node.module("axe-core/axe.min.js"), encoding="utf-8") as file:
        return file.read()
