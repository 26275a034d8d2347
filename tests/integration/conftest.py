"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium (playwright's ``Browser``)."""
    from tests.chromium import launched  # slow to import, and few need it

    with launched() as browser:
        yield browser
