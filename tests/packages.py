"""What users install, built as it is for them."""

from __future__ import annotations

import fcntl
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
BUILDING_SECONDS = 500.0
"""What one took on two busy cores: 170 s."""


_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
"""What the processes of this run of the tests have in common, and no other run."""


def built(kind: str, *, again: bool = False) -> str:
    """Return the path of what ``make KIND`` builds: ``wheel``, ``deb`` or ``rpm``.

    Built once in a run of the tests: a package that lay there before could be of other sources.

    Args:
        kind: which.
        again: build it also when this run has.
    """
    directory = ROOT / "build"
    directory.mkdir(exist_ok=True)
    with open(directory / "packages.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = directory / f"{kind}.run"
        if again or not mark.exists() or mark.read_text() != _RUN:
            _make(kind)
            mark.write_text(_RUN)
        (path,) = (directory / "dist").glob(f"*.{'whl' if kind == 'wheel' else kind}")
    return str(path)


def _make(kind: str) -> None:
    done = subprocess.run(
        ["make", "-C", str(ROOT), kind],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILDING_SECONDS,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
