"""Fixtures: what is installed by newcomers, built as it is for them, and hosts that have it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import packages
from tests.cleanroot import CleanRoot, timed

from . import hosts
from .packaged import KINDS, Package


@pytest.fixture(scope="module")
def package(request: pytest.FixtureRequest) -> Package:
    """The package of a kind."""
    return KINDS[request.param](packages.built(request.param))


@pytest.fixture(scope="module")
def newcomer(pytestconfig: pytest.Config, package: Package) -> Iterator[CleanRoot]:
    """A host with a guest at its login prompt; the package is installed, and how long that took."""
    with hosts.clean(pytestconfig) as root:
        package.prepare(root)
        with timed(root.seconds, "package"):
            package.install(root)
        yield root
