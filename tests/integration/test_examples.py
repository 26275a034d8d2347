"""docs/integrating.md: its commands as they stand there, its examples in a browser."""

import contextlib
import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from serial_console import errors
from serial_console.client import Client
from serial_console.demo import host
from tests import cockpit, documents, rig
from tests.chromium import shows
from tests.stack import BIN, Stack, free_port

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "integrating.md").read_text()


class Host:
    """A host with the services; what the document types is typed here.

    Attributes:
        stack: the services; their gateway knows ``port`` of 127.0.0.1 as an origin.
        directory: where it is typed, with a manager.key; docs and serial_console are there too.
    """

    def __init__(self, stack, port, directory):
        self.stack = stack
        self.port = port
        self.directory = directory
        for name in ("docs", "serial_console"):
            (directory / name).symlink_to(ROOT / name)
        (directory / "manager.key").write_text(f"{self.stack.key}\n")

    def here(self, text, guest="web-1"):
        """What is typed on this host: the document's names stand for others."""
        for word, ours in (
            (":6083", f":{self.stack.gateway_port}"), (":6084", f":{self.stack.api_port}"),
            (" 8000", f" {self.port}"), (" 8001", f" {self.port}"), ("web-1", guest),
            ("/run/serial-console-api", f"{self.stack.run_dir}/api"),
        ):  # fmt: skip
            text = text.replace(word, ours)
        return text

    @property
    def settings(self):
        """How a shell's commands are run here."""
        environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "SERIAL_CONSOLE_CONFIG": self.stack.config,
        }
        return {
            "cwd": self.directory,
            "env": environment,
            "text": True,
            "stdin": subprocess.DEVNULL,
        }

    def type(self, command):
        """Run a command to its end; return what it prints."""
        done = subprocess.run(
            ["sh", "-e", "-c", command], capture_output=True, check=False, **self.settings
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self, command):
        """Run a command that serves, until the end of the context; gives the address it prints."""
        with open(self.directory / "example.log", "wb") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"], stdout=subprocess.PIPE, stderr=log, **self.settings
            )
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.communicate(timeout=10)


@pytest.fixture(scope="module")
def typed(libvirtd, tmp_path_factory):
    """See Host."""
    port = free_port()
    origins = {"allowed_origins": [f"http://127.0.0.1:{port}"]}
    directory = tmp_path_factory.mktemp("typed")
    with host.short_directory("sc-run-") as run_dir:
        stack = Stack(libvirtd.uri, run_dir, str(directory), gateway=origins)
        try:
            stack.start("supervisor", "gateway", "api")
            assert stack.ask("health")["libvirt"] == "ok"  # the inventory is there from now on
            yield Host(stack, port, directory)
        finally:
            stack.close()
        assert rig.files_below(run_dir) == []


# ---- the client


def test_the_client_s_examples(typed, shared_guest, monkeypatch):
    (typed.directory / "manager.key").unlink()
    typed.type(documents.block("docs/integrating.md", "key"))
    assert (typed.directory / "manager.key").stat().st_mode & 0o777 == 0o600
    monkeypatch.chdir(typed.directory)
    names = {}
    exec(typed.here(documents.block("docs/integrating.md", "client")), names)
    assert isinstance(names["client"], Client)
    url = names["console_url"](shared_guest.name, "anna")
    assert url.startswith(f"http://127.0.0.1:{typed.stack.gateway_port}/serial.html#token=")
    assert names["why_not"](shared_guest.name) == ""
    assert names["why_not"]("nobody") == "It has been deleted."
    exec(typed.here(documents.block("docs/integrating.md", "context"), shared_guest.name), names)
    assert names["prompt"] == b"\r"
    typed.stack.wait_free()


def test_the_codes_are_those_that_there_are():
    """The error tree's, and what problems.py and access.py say of HTTP."""
    cells = re.findall(r"^\| (`.*?) \|", DOCUMENT, re.MULTILINE)
    listed = set(re.findall(r"`(\w+)`", "".join(cells)))
    known = {sub.code for sub in subclasses(errors.ConsoleError)} | {"too_large", "internal_error"}
    codes = {one for one in listed if "_" in one or one in known}
    assert codes <= known
    rest = {one.code for one in subclasses(errors.ConsoleError) if one.http in (401, 403, 404, 503)}
    assert rest - {"bad_token"} <= codes


def subclasses(kind):
    return [one for sub in kind.__subclasses__() for one in (sub, *subclasses(sub))]


# ---- the managers


def test_a_manager_in_the_shape_of_kimchi(typed, shared_guest, browser):
    with typed.running(typed.here(documents.block("docs/integrating.md", "kimchi"))) as address:
        page = browser.new_page()
        page.goto(address)
        guest = page.locator("li", has_text=shared_guest.name)
        with page.expect_popup() as opened:
            guest.get_by_role("button", name="Open in a tab").click()
        tab = opened.value
        typed.stack.wait_sessions("connected")
        shows_what_is_typed(tab, tab.locator(".xterm-helper-textarea"), "in a tab")
        tab.close()
        typed.stack.wait_free()
        guest.get_by_role("button", name="Open here").click()
        typed.stack.wait_sessions("connected")
        frame = page.frame_locator("iframe")
        frame.locator(".xterm-helper-textarea").press_sequentially("in a frame")
        expect(frame.locator(".xterm-rows")).to_contain_text("in a frame")
        forged = page.request.post(
            f"{address}/{shared_guest.name}/serial", headers={"Origin": "http://stranger.example"}
        )
        assert forged.status == 403
        gone = page.request.post(
            f"{address}/nobody/serial", headers={"Origin": address.partition("/plugins")[0]}
        )
        assert gone.status == 404
        assert "no guest &quot;nobody&quot;" in gone.text()
        page.close()
    typed.stack.wait_free()


def test_a_package_for_cockpit_in_cockpit_itself(typed, shared_guest, browser):
    typed.type(documents.block("docs/integrating.md", "cockpit"))
    package = typed.directory / ".local" / "share" / "cockpit" / "serial-console"
    for file in (package / "manifest.json", package / "consoles.js"):
        file.write_text(typed.here(file.read_text()))
    with cockpit.serving(typed.directory, typed.port) as address:
        page = browser.new_page()
        page.goto(f"{address}/serial-console/index.html")
        page.get_by_role("button", name=shared_guest.name).click()
        expect(page.locator("#state")).to_have_text(f"{shared_guest.name}: connected")
        shows_what_is_typed(page, page.locator(".xterm-helper-textarea"), "in Cockpit")
        assert typed.stack.session_of(shared_guest)["user"] == pwd.getpwuid(os.geteuid()).pw_name
        typed.stack.cli("close", "--all")
        expect(page.locator("#state")).to_contain_text("operator")
        page.close()
    typed.stack.wait_free()


def test_a_dashboard_in_the_shape_of_nova(typed, shared_guest, browser):
    answer = typed.type(
        typed.here(documents.block("docs/integrating.md", "nova-curl"), shared_guest.uuid)
    )
    assert f"ws://127.0.0.1:{typed.stack.gateway_port}/websockify?token=" in answer
    with typed.running(typed.here(documents.block("docs/integrating.md", "nova"))) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("Server").fill(shared_guest.uuid)
        page.get_by_role("button").click()
        typed.stack.wait_sessions("connected")
        page.locator("#console").press_sequentially("as nova")
        expect(page.locator("#console")).to_contain_text("as nova")
        page.goto(address)
        page.get_by_label("Server").fill("no/body")
        page.get_by_role("button").click()
        expect(page.locator("body")).to_contain_text('there is no guest "no/body"')
        page.close()
    typed.stack.wait_free()


def shows_what_is_typed(page, keyboard, text):
    keyboard.press_sequentially(text)
    shows(page, f"^{text}")


def test_every_example_is_in_the_document():
    examples = ROOT / "docs" / "examples"
    for example in examples.iterdir():
        assert f"docs/examples/{example.name}" in DOCUMENT
