"""The targets of ``make fuzz`` with a fixed set of inputs, and that their harness works."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .. import rig
from ..fuzz import targets
from ..fuzz.mutate import mutated
from ..fuzz.terminal_reference import answers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
EXAMPLES = 150


@pytest.fixture(autouse=True)
def fake_supervisor_ended() -> Iterator[None]:
    yield
    targets.close()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_is_mutated_is_understood_or_refused(name: str) -> None:
    target = targets.TARGETS[name]
    for seed in target.seeds:
        target.check(seed)

    @settings(max_examples=EXAMPLES)
    @given(st.sampled_from(target.seeds), st.integers(0, 1 << 32))
    def mutations(seed: bytes, number: int) -> None:
        target.check(mutated(seed, random.Random(number)))

    @settings(max_examples=EXAMPLES)
    @given(st.binary(max_size=300))
    def any_bytes(data: bytes) -> None:
        target.check(data)

    mutations()
    any_bytes()


def test_the_reference_terminal_answers() -> None:
    """What judges the stripping must itself see what is to be stripped."""
    for query in (b"\x1b[6n", b"\xc2\x9bc", b"\x1b]11;?\x07", b"\x1bP$qm\x1b\\", b"\x05", b"\x1bZ"):
        assert len(answers(b"a" + query + b"b")) == 1, query
    assert answers(b"\x1b[31mred\x1b[m\x1b]0;what?\x07") == []


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_harness_runs(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        rig.missing("atheris")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz",
            "--seconds=1",
            "--runs=200",
            f"--build={tmp_path}",
            name,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: " in done.stdout
