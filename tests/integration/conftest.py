"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import DAEMONS


@pytest.fixture(scope="module")
def browser(pytestconfig: pytest.Config) -> Iterator[Any]:
    """Chromium (playwright's ``Browser``) for a module; each page of it is a profile of its own."""
    from tests import chromium  # slow to import, and few need it

    daemons = pytestconfig.stash.setdefault(DAEMONS, [])
    with chromium.launched() as browser:
        daemons.append(chromium)
        try:
            yield browser
        finally:
            daemons.remove(chromium)
