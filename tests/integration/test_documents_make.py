"""What the documents tell to type in a checkout: each is make's, and most need minutes."""

import os
import re
import signal
import subprocess
from urllib.parse import urlsplit

import pytest

from tests import documents
from tests.clients import Pty, Terminal
from tests.typist import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def typed(text, **variables):
    """Type it in this checkout, as somebody does who has not been started by make or pytest."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS", "PYTEST_", "CI"))
    }
    done = subprocess.run(
        ["bash", "-euc", text],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment | variables,
        timeout=1400,
    )
    assert done.returncode == 0, f"{text}{done.stdout[-5000:]}{done.stderr[-5000:]}"
    return done.stdout


@pytest.mark.parametrize(
    "text",
    [
        documents.block("README.md", "try").splitlines()[0],
        documents.block("docs/tour.md", "demo"),
        ".venv/bin/" + documents.block("docs/cli.md", "demo"),
    ],
)
def test_the_demo(text):
    with Pty(["bash", "-c", f"cd {ROOT} && exec {text}"]) as shell:
        shown = shell.read_until(b"Log in as root", 300)
        link = urlsplit(re.findall(rb"http://\S+", shown)[-1].decode())
        token = link.fragment.removeprefix("token=")
        with Terminal(f"ws://{link.netloc}/websockify?token={token}") as terminal:
            terminal.read_until(b"login: ", 120)
            terminal.send(b"root\r")
            terminal.read_until(b"# ")
        shell.send(b"\x03")
        shell.read_until(b"The demo has ended and is gone.", 60)
        assert shell.wait(60) in (0, 2, 130, -signal.SIGINT)


def test_the_readme_s_tests():
    line = documents.block("README.md", "try").splitlines()[1]
    assert "passed" in typed(line, ARGS="-k test_names")  # or it would run this test, too


def test_a_checkout_is_set_up():
    text = documents.block("docs/tour.md", "checkout")
    assert typed(text + "command -v serial-console").endswith(".venv/bin/serial-console\n")
    assert typed(documents.block("docs/contributing.md", "setup")) == ""  # nothing is left to do


def test_the_contributor_s_loop():
    said = typed(documents.block("docs/contributing.md", "loop"))
    assert "Success: no issues found" in said
    assert re.search(r"\d+ passed", said)
    assert (ROOT / "build/site/index.html").exists()


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        # Nine minutes, and it would renew docs/performance/.
        (documents.block("docs/performance.md", "all"), {"ARGS": "--quick rtt"}),
        (documents.block("docs/performance.md", "some"), {}),
    ],
)
def test_the_bench(text, variables):
    said = typed(text, **variables)
    assert said.count("| figure") == text.count("make bench")
