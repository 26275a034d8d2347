"""The wheel: the same from each clone, complete, and at work where nothing else of ours is."""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import zipfile

import pytest

from serial_console import cli
from tests import documents, packages
from tests.clients import echo
from tests.stack import http

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = packages.ROOT
VENDOR = "serial_console/web/vendor"


@pytest.fixture(scope="module")
def wheel():
    return packages.built("wheel")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment, made by the lines of docs/install.md."""
    directory = tmp_path_factory.mktemp("installed")
    shutil.copy(wheel, directory)
    lines = documents.block("docs/install.md", "pip").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("apt-get"))
    assert len(text.splitlines()) == 2
    text = text.replace("/opt/serial-console", str(directory / "venv"))
    done = subprocess.run(
        ["bash", "-euc", text], cwd=directory, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    yield directory / "venv"
    removal = documents.block("docs/install.md", "pip-remove")
    removal = removal.replace("/opt/serial-console", str(directory / "venv"))
    subprocess.run(["bash", "-euc", removal], check=True)


def clone(directory, mask, page=True):
    """A checkout of what is here, as somebody with another umask has it."""
    stash = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "stash", "create"]
    state = subprocess.run(stash, cwd=ROOT, capture_output=True, text=True)
    script = f"""
        umask {mask}
        git clone --quiet {ROOT} {directory}
        cd {directory}
        git -C {ROOT} archive {state.stdout.strip() or "HEAD"} | tar -x --no-same-permissions
        mkdir build
        ln -s {ROOT}/.venv .venv
    """
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True)
    if page:
        shutil.copytree(ROOT / VENDOR, directory / VENDOR)
    return directory


def test_two_clones_give_the_same_wheel(wheel, tmp_path):
    found = set()
    for mask in ("077", "002"):
        there = clone(tmp_path / mask, mask)
        # Left by something else, and no part of it.
        (there / "build/lib").mkdir()
        (there / "build/lib/stray.py").write_text("")
        (there / "serial_console/stray.py").write_text("")
        subprocess.run(["packaging/build", "wheel"], cwd=there, check=True, umask=int(mask, 8))
        (path,) = (there / "build/dist").iterdir()
        found.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(found) == 1


def test_what_is_in_it(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        for script in ("xterm", "addon-fit", "addon-webgl"):
            assert file.getinfo(f"{VENDOR}/{script}.js").file_size > 1000
        assert b"Permission is hereby granted" in file.read(f"{VENDOR}/xterm.LICENSE")
    tops = {name.split("/")[0] for name in names}
    (info,) = tops - {"serial_console", "websockify_tokens"}
    assert f"{info}/licenses/LICENSE" in names
    assert [name for name in names if re.search(r"node_modules|tests?/|\.d\.ts|\.mjs", name)] == []
    # Every licence that npm's packages have, and every file that the page asks for.
    here = {f"{VENDOR}/{one}" for one in os.listdir(ROOT / VENDOR) if not one.endswith(".d.ts")}
    assert here == {name for name in names if name.startswith(VENDOR)}


@pytest.mark.parametrize(
    "command",
    [["packaging/build", "wheel"], [".venv/bin/pip", "wheel", "--no-deps", "."]],
    ids=lambda command: command[0],
)
def test_no_wheel_without_the_page(tmp_path, command):
    there = clone(tmp_path / "clone", "022", page=False)
    done = subprocess.run(command, cwd=there, capture_output=True, text=True)
    assert done.returncode != 0
    assert "so the package would have no page; run: make wheel" in done.stdout + done.stderr
    assert not list(there.glob("**/*.whl"))


def test_no_source_archive_that_would_lack_something(tmp_path):
    code = f"import build_backend; build_backend.build_sdist({str(tmp_path)!r})"
    command = [f"{ROOT}/.venv/bin/python", "-c", code]
    done = subprocess.run(command, cwd=ROOT / "tools", capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "serial-console: there is no source archive, only a wheel; run: make wheel",
    )
    assert not os.listdir(tmp_path)


def typed(parser):
    """Every command, as it is typed."""
    subs = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return [
        [name, *rest]
        for action in subs
        for name, sub in action.choices.items()
        for rest in typed(sub)
    ] or [[]]


def test_every_command_starts(installed):
    program = str(installed / "bin/serial-console")
    for command in typed(cli.parser()):
        done = subprocess.run([program, *command, "--help"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout.startswith(f"usage: serial-console {' '.join(command)}"), command
    # What a command imports when it runs.
    done = subprocess.run(
        [
            str(installed / "bin/python"), "-I", "-c",
            "import importlib, pkgutil, serial_console, websockify_tokens\n"
            "for top in (serial_console, websockify_tokens):\n"
            "    for one in pkgutil.walk_packages(top.__path__, top.__name__ + '.'):\n"
            "        if not one.name.endswith('__main__'):\n"
            "            importlib.import_module(one.name)\n"
            "            print(one.name)\n",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    there = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for top in ("serial_console", "websockify_tokens")
        for path in (ROOT / top).rglob("*.py")
        if "node_modules" not in path.parts and path.name != "__main__.py"
    }
    assert set(done.stdout.split()) == there - {"serial_console", "websockify_tokens"}


@pytest.fixture
def of_wheel(monkeypatch, installed):
    """Services come from the fresh environment, and not from here."""
    monkeypatch.setattr("tests.stack.BIN", str(installed / "bin"))


def test_the_page_is_served_from_the_package(of_wheel, installed, make_stack):
    stack = make_stack("supervisor", "gateway")
    status, _, page = http(stack.gateway_port, "GET", "/serial.html")
    assert status == 200
    assert page == (ROOT / "serial_console/web/serial.html").read_bytes()
    for path in (ROOT / VENDOR).glob("*.js"):
        status, _, data = http(stack.gateway_port, "GET", f"/vendor/{path.name}")
        assert (status, data) == (200, path.read_bytes()), path.name
    command = pathlib.Path(f"/proc/{stack.pid('gateway')}/cmdline").read_text()
    assert command.startswith(str(installed))


def test_running_services_need_no_file_of_theirs_any_more(
    of_wheel, installed, make_stack, make_guest
):
    """An upgrade replaces the environment below sessions, and below services until they restart."""
    first, second = make_guest("echo"), make_guest("echo")
    stack = make_stack("supervisor", "gateway", "stock", "api")
    token = stack.token(second.name)
    (libraries,) = installed.glob("lib/python3*/site-packages")
    aside = libraries.with_name("replaced")
    with stack.open(first.name, user="alice") as terminal:
        echo(terminal, b"before")
        libraries.rename(aside)
        try:
            assert stack.ask("guests")["ok"]
            echo(terminal, b"after")
            # A relay that is forked, a gateway's child, and the stock websockify's.
            with stack.connect(token) as newcomer:
                echo(newcomer, b"new")
            stack.wait_sessions("connected")
            with stack.open(second.name, "stock") as other:
                echo(other, b"stock")
            with stack.open(first.name, user="bob", takeover=True) as taker:
                assert terminal.ended()[0] == 4410
                taker.send(b"taken over")
                taker.read_until(b"taken over")  # after what the other one has seen
                taker.send(b"\x11")
                assert taker.ended()[0] == 1000
            assert http(stack.api_port, "GET", "/healthz")[0] == 200
        finally:
            aside.rename(libraries)
    stack.wait_free()
    assert "ModuleNotFoundError" not in stack.logs()
