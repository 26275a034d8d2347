"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import fakes
from .rest import Rest


@pytest.fixture
def rest(run_dir: str, tmp_path: Path) -> Iterator[Rest]:
    config = fakes.config(run_dir, str(tmp_path / "api-keys"))
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.guests = [fakes.guest("web-1"), fakes.guest("web-2"), fakes.guest("db")]
        supervisor.sessions = [
            fakes.session("s-web", supervisor.guests[0], "t-web"),
            fakes.session("s-db", supervisor.guests[2], "t-db"),
        ]
        yield Rest(config, supervisor)
