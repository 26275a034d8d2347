"""setuptools' build backend, which refuses to build a package without the page.

A wheel that lacks the page installs well and serves nothing. The page comes from npm, which no
Python build step should call on its own: ``make wheel`` has it made first.
"""

from __future__ import annotations

import pathlib
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  the rest of the hooks (PEP 517) as they are

_PAGE = pathlib.Path("serial_console/web/vendor/xterm.js")


def build_wheel(*arguments: Any, **options: Any) -> str:
    """See PEP 517."""
    _need_page()
    return build_meta.build_wheel(*arguments, **options)


def build_sdist(*_: Any, **__: Any) -> str:
    """See PEP 517; there is none, since what is published is the wheel."""
    raise SystemExit("serial-console: there is no source archive, only a wheel; run: make wheel")


def _need_page() -> None:
    if not _PAGE.exists():
        raise SystemExit(
            f"serial-console: {_PAGE} is not there, so the package would have no page; "
            "run: make wheel"
        )
