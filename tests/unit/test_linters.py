"""Types, lint, format and spelling are tests like any other."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


@pytest.mark.parametrize(
    "command",
    [
        ["mypy"],
        ["ruff", "check", "--quiet"],
        ["ruff", "format", "--check", "--quiet"],
        ["codespell_lib"],
    ],
    ids=lambda command: " ".join(command),
)
def test_linter(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imports(path: str) -> list[str]:
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return re.findall(r"^\s*(?:import|from)\s+([\w.]+)", file.read(), re.MULTILINE)


def sources(package: str) -> list[str]:
    found = []
    for directory, _, files in os.walk(os.path.join(ROOT, package)):
        if "node_modules" not in directory:
            found += [os.path.join(directory, name) for name in files if name.endswith(".py")]
    return [os.path.relpath(path, ROOT) for path in found]


def test_libvirt_is_imported_by_few() -> None:
    users = [path for path in sources("serial_console") if "libvirt" in imports(path)]
    few = ("connection", "guest", "guestconsole", "phrases", "streamline")
    assert sorted(users) == [f"serial_console/{name}.py" for name in few]


def test_the_plugin_knows_nothing_of_the_rest() -> None:
    for path in sources("websockify_tokens"):
        for module in imports(path):
            top = module.split(".")[0]
            assert top in {"", "websockify", *sys.stdlib_module_names}, f"{path}: {module}"


def listing(package: str) -> list[str]:
    """Return a package's modules as docs/architecture.md lists them, the uppermost first."""
    with open(os.path.join(ROOT, "docs", "architecture.md"), encoding="utf-8") as file:
        layout = file.read().partition("## Layout")[2]
    found = re.search(rf"^ +{package}/ (.*?)(?:^ +\w+/ |\Z)", layout, re.MULTILINE | re.DOTALL)
    assert found is not None
    return re.findall(r"\w+", found[1])


@pytest.mark.parametrize("package", ["serial_console", "websockify_tokens"])
def test_the_documented_layout_is_the_code_s_and_imports_point_down(package: str) -> None:
    """By whatever way; lazy imports count too."""
    listed = listing(package)
    directory = os.path.join(ROOT, package)
    there = {name[:-3] for name in os.listdir(directory) if name.endswith(".py")}
    assert sorted({*listed} - {"__init__"}) == sorted(there - {"__init__", "__main__"})
    for number, name in enumerate(listed):
        with open(os.path.join(directory, name + ".py"), encoding="utf-8") as file:
            lines = re.findall(r"^\s*from \.(\w*) import ([^\n(]*)", file.read(), re.MULTILINE)
        needed = {module or word for module, what in lines for word in re.findall(r"\w+", what)}
        up = needed & {*listed[: number + 1]}
        assert not up, f"{name} imports {up}, which the layout lists above it"
