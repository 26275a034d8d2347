"""What the documents name is there."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NAMED = sorted(
    set(re.findall(r"`(\w+/\w+\.py)::(\w+)`", (ROOT / "docs/security.md").read_text("utf-8")))
)


def test_the_attacks_are_listed() -> None:
    assert len(NAMED) > 50


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_each_attack_is_shown_by_a_test_that_exists(path: str, name: str) -> None:
    text = (ROOT / "tests" / path).read_text("utf-8")
    assert re.search(rf"^ *def {name}\(", text, re.MULTILINE)
