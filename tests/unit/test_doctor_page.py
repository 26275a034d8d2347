"""docs/troubleshooting.md names what is there: words that are shown, close codes, checks."""

import ast
import pathlib
import re

import pytest

from serial_console.doctor.checks import checks
from serial_console.errors import CODES, CloseCode

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
QUOTED = sorted(set(re.findall(r'"([^"\n]+)"', TEXT)))
WITHIN = {"console", "event loop", "libvirt rights", "tls key", "tls name"}
"""Checks that another one brings along: tests/integration/test_doctor.py and test_doctor_checks.py
name them."""


def python_strings():
    """Yield each string of the program, with a space for what is put in: a line each."""
    for package in ("serial_console", "websockify_tokens"):
        for path in (ROOT / package).rglob("*.py"):
            if "node_modules" in path.parts:
                continue
            documentation = set()
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Expr):
                    documentation.add(node.value)
                if node in documentation:
                    continue
                if isinstance(node, ast.JoinedStr):
                    parts = (
                        one.value if isinstance(one, ast.Constant) else " " for one in node.values
                    )
                    yield "".join(map(str, parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.sub(r"%[\d.]*[sdrf]", " ", node.value)


@pytest.fixture(scope="module")
def said():
    """All that the program and its page can say."""
    page = [path.read_text("utf-8") for path in (ROOT / "serial_console/web").glob("*.js")]
    return "\n".join([*(" ".join(one.split("\n")) for one in python_strings()), *page])


def test_there_is_something_to_check():
    assert len(QUOTED) > 25


@pytest.mark.parametrize("words", QUOTED)
def test_what_it_quotes_is_said(words, said):
    pieces = [re.escape(piece.strip()) for piece in words.split("\N{HORIZONTAL ELLIPSIS}")]
    assert re.search("[^\n]*".join(pieces), said), words


def test_each_close_code_is_known_and_each_known_one_is_told_of():
    told = {int(code) for code in re.findall(r"\b(1\d{3}|4[45]\d{2})\b", TEXT)}
    assert told == {*map(int, CloseCode), 1006}


def test_each_check_that_it_names_is_one_and_all_are_named():
    named = set(re.findall(r"check `([^`]+)`", TEXT))
    assert named == {*checks(None), *WITHIN}


def test_each_error_code_that_it_names_is_one():
    named = set(re.findall(r"`([a-z]+_[a-z]+)`", TEXT)) - {*checks(None), "client_address"}
    assert named <= CODES
