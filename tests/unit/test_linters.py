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


def test_libvirt_is_imported_in_one_file_only() -> None:
    users = [path for path in sources("serial_console") if "libvirt" in imports(path)]
    assert users == ["serial_console/guest.py"]


def test_the_plugin_knows_nothing_of_the_rest() -> None:
    for path in sources("websockify_tokens"):
        for module in imports(path):
            top = module.split(".")[0]
            assert top in {"", "websockify", *sys.stdlib_module_names}, f"{path}: {module}"


def test_imports_point_one_way() -> None:
    """No module of ours needs, by whatever way, one that needs it; lazy imports count too."""
    package = os.path.join(ROOT, "serial_console")
    names = {name[:-3] for name in os.listdir(package) if name.endswith(".py")} - {"__init__"}
    left = {}
    for name in names:
        with open(os.path.join(package, name + ".py"), encoding="utf-8") as file:
            lines = re.findall(r"^\s*from \.(\w*) import ([^\n(]*)", file.read(), re.MULTILINE)
        needed = {module or word for module, what in lines for word in re.findall(r"\w+", what)}
        left[name] = needed & names
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        for name in free:
            del left[name]
    assert not left, f"these need each other: {left}"
