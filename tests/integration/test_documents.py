"""What README.md and the documents tell an operator to type, typed."""

import contextlib
import json
import os
import re
import shlex
import urllib.request
from urllib.parse import urlsplit

import pytest

from tests import documents, rig
from tests.clients import Pty, Terminal
from tests.typist import ROOT, Typist

GUEST = "web-1"
"""What the documents call a guest."""


@pytest.fixture(scope="module")
def typist(libvirtd, tmp_path_factory):
    """A user with a guest, who has typed ``serial-console run``."""
    factory = rig.GuestFactory(libvirtd)
    try:
        factory("echo", name=GUEST)
        one = Typist(libvirtd, tmp_path_factory.mktemp("typist"))
        try:
            with one.foreground(documents.block("docs/tour.md", "run")):
                yield one
        finally:
            one.close()
    finally:
        factory.close()


@pytest.fixture
def nobody_is_there(typist):
    yield
    typist.types("serial-console close --all")
    assert rig.eventually(lambda: json.loads(typist.types("serial-console sessions --json")) == [])


def opened(typist, url):
    """Take a link where the page would take it."""
    parts = urlsplit(url.strip())
    assert parts.path == "/serial.html"
    token = re.fullmatch(r"token=([\w-]{43})", parts.fragment)
    assert token
    with typist.network.entered():
        with urllib.request.urlopen(f"http://{parts.netloc}{parts.path}") as page:
            assert b"<title>" in page.read()
        return Terminal(f"ws://{parts.netloc}/websockify?token={token[1]}")


def echoes(terminal):
    terminal.send(b"hello")
    terminal.read_until(b"hello")


def attached(typist, text):
    """Type a line that attaches the shell."""
    with typist.network.entered():
        return Pty(typist.command(text))


@pytest.mark.usefixtures("nobody_is_there")
def test_the_tour(typist):
    assert GUEST in typist.types(documents.block("docs/tour.md", "guests"))
    with opened(typist, typist.types(documents.block("docs/tour.md", "link"))) as terminal:
        echoes(terminal)
        listed, link = typist.types(documents.block("docs/tour.md", "watch")).rsplit("\n", 2)[:2]
        assert re.search(rf"{GUEST} .* rw ", listed)
        with opened(typist, link) as watcher:
            watcher.read_until(b"hello")
            with attached(typist, documents.block("docs/tour.md", "attach")) as shell:
                assert terminal.ended()[0] == 4410
                shell.send(b"and here")
                shell.read_until(b"and here")
                shell.send(b"\x1d")
                assert shell.wait() == 0
            assert "closed" in typist.types(documents.block("docs/tour.md", "close"))
            assert watcher.ended()[0] == 4411


@pytest.mark.usefixtures("nobody_is_there")
def test_the_tour_s_host_manager(typist):
    answer = json.loads(typist.types(documents.block("docs/tour.md", "rest")))
    with opened(typist, answer["page_url"]) as terminal:
        echoes(terminal)
    typist.types("serial-console key revoke my-manager")


@pytest.mark.usefixtures("nobody_is_there")
def test_the_readme(typist):
    assert documents.block("README.md", "run") == documents.block("docs/tour.md", "run")
    *lines, attach = documents.block("README.md", "use").splitlines()
    link = typist.types(lines[1])
    with opened(typist, link) as terminal:
        echoes(terminal)
    said = typist.types("\n".join(lines))
    assert said.count(GUEST) >= 1
    with attached(typist, attach) as shell:
        shell.read_until(b"the escape key is ^]")
        shell.send(b"\x1d")
        assert shell.wait() == 0
    key = typist.types(documents.block("README.md", "key")).strip()
    there: dict = {}
    exec(documents.block("README.md", "request"), there)
    with typist.network.entered():
        url = there["console_url"](GUEST, "alice", key)
    with opened(typist, url) as terminal:
        echoes(terminal)
    typist.types("serial-console key revoke my-manager")


@pytest.mark.usefixtures("nobody_is_there")
def test_the_manual_s_examples(typist):
    typing, watching = typist.types(documents.block("docs/cli.md", "links")).split()
    with opened(typist, typing) as terminal, opened(typist, watching) as watcher:
        echoes(terminal)
        watcher.read_until(b"hello")
        with attached(typist, documents.block("docs/cli.md", "attach")) as shell:
            assert terminal.ended()[0] == 4410
            said = typist.types(documents.block("docs/cli.md", "all"))
            assert f'"guest": "{GUEST}"' in said
            assert said.endswith("2 sessions closed\n")
            assert shell.wait() == 1
    said = typist.types(documents.block("docs/cli.md", "keys"))
    assert "my-manager" in said
    assert "web-*" in said


def test_an_audit_log_is_verified(make_stack, echo_guest, tmp_path):
    stack = make_stack("supervisor", "gateway", log={"audit": str(tmp_path / "audit.log")})
    with stack.open(echo_guest.uuid) as terminal:
        echoes(terminal)
    stack.wait_free()
    program, *arguments = shlex.split(documents.block("docs/audit.md", "verify"))
    assert program == os.path.basename(stack.program[0])
    done = stack.cli(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "head" in done.stdout


@pytest.mark.usefixtures("nobody_is_there")
def test_rest_s_examples(typist):
    key = typist.types("serial-console key add rest").strip()

    def asks(text, token=""):
        return typist.types(f"KEY={key}\nID={token}\n{text}")

    issued = json.loads(asks(documents.block("docs/rest.md", "issue")))
    with opened(typist, issued["page_url"]) as terminal:
        echoes(terminal)
        (session,) = json.loads(asks(documents.block("docs/rest.md", "sessions")))["sessions"]
        assert (session["guest"], session["user"]) == (GUEST, "alice")
        assert asks(documents.block("docs/rest.md", "revoke"), issued["id"]) == ""
        assert terminal.ended()[0] == 4411
    shown = re.search(r"```json\n(.*?)```", (ROOT / "docs/rest.md").read_text("utf-8"), re.DOTALL)
    assert shown
    assert json.loads(asks(documents.block("docs/rest.md", "problem"))) == json.loads(shown[1])
    typist.types("serial-console key revoke rest")


@pytest.mark.usefixtures("nobody_is_there")
def test_keys(typist):
    manager, alice = typist.types(documents.block("docs/keys.md", "add")).split()
    ask = "curl --silent --header 'Authorization: Bearer {}' http://127.0.0.1:6084/v1/guests"
    assert GUEST in typist.types(ask.format(manager))
    assert GUEST in typist.types(ask.format(alice))
    listed = typist.types(documents.block("docs/keys.md", "revoke"))
    assert re.search(r"alice +ro +web-\* db-\?", listed)
    for key in (manager, alice):
        assert json.loads(typist.types(ask.format(key)))["code"] == "unauthorized"


def test_each_service_by_itself(libvirtd, tmp_path):
    runtime = f"{libvirtd.directory}/data"  # the other one has the typist's services
    os.symlink(f"{libvirtd.directory}/run/libvirt", f"{runtime}/libvirt")
    user = Typist(libvirtd, tmp_path, XDG_RUNTIME_DIR=runtime)
    try:
        with contextlib.ExitStack() as shells:
            for line in documents.block("docs/operating.md", "services").splitlines():
                shells.enter_context(user.foreground(line))
            health = json.loads(user.types("curl --silent http://127.0.0.1:6084/healthz/ready"))
            assert (health["status"], health["libvirt"]) == ("ok", "ok")
    finally:
        user.close()
        os.unlink(f"{runtime}/libvirt")


@pytest.mark.parametrize(
    "text",
    [documents.block("docs/cli.md", "config"), documents.block("docs/configuration.md", "check")],
)
def test_the_configuration_is_checked_and_shown(typist, text):
    said = typist.types(text)
    assert "the defaults are ok" in said
    assert "[gateway]" in said
