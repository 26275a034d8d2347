"""What cannot be had is refused with one clear sentence at the right place, and burns no token."""

import re
import time

import pytest

from serial_console.demo.libvirtd import VirshError
from tests import rig
from tests.clients import Pty


def assert_one_line(done, *words):
    """A command that failed as it should: status 1, one line on stderr that says these words."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"serial-console: [^\n]+\n", done.stderr), done.stderr
    for word in words:
        assert word in done.stderr


def assert_problem(answer, status, code, *words):
    """A REST answer that is a problem document of this status and code with these words."""
    got, problem = answer
    assert (got, problem["status"], problem["code"]) == (status, status, code)
    for word in words:
        assert word in problem["detail"]


def assert_attaches(stack, token):
    with stack.connect(token) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
    stack.wait_free()


class TestIssuing:
    @pytest.mark.parametrize("name", ["nobody-has-this", "00000000-0000-0000-0000-000000000000"])
    def test_unknown_guest(self, shared, name):
        answer = shared.rest("POST", f"/v1/guests/{name}/tokens", {})
        assert_problem(answer, 404, "no_such_guest", name)
        assert_problem(shared.rest("GET", f"/v1/guests/{name}"), 404, "no_such_guest", name)
        assert_one_line(shared.cli("token", name), name, "serial-console guests")
        assert_one_line(shared.cli("attach", name), name)

    def test_guest_without_a_console(self, shared, make_guest):
        guest = make_guest(serial=(), state="off")
        answer = shared.rest("POST", f"/v1/guests/{guest.name}/tokens", {})
        assert_problem(answer, 404, "no_such_console", guest.name, "no console")
        assert_one_line(shared.cli("token", guest.name), guest.name, "<serial type=")
        assert shared.rest("GET", f"/v1/guests/{guest.name}")[1]["consoles"] == []

    @pytest.mark.parametrize(
        ("backend", "kind", "says"),
        [
            ("null", "null", "discards all output"),
            ("connect", "tcp", 'make it <source mode="bind">'),
        ],
    )
    def test_console_that_cannot_be_opened(self, shared, make_guest, backend, kind, says):
        guest = make_guest(serial=["pty", backend], state="off")
        body = {"console": "serial1"}
        answer = shared.rest("POST", f"/v1/guests/{guest.name}/tokens", body)
        assert_problem(answer, 409, "unsupported_console", "serial1", kind, says, 'type="pty"')
        done = shared.cli("token", guest.name, "--console", "serial1")
        assert_one_line(done, "serial1", kind, says)
        consoles = shared.rest("GET", f"/v1/guests/{guest.name}")[1]["consoles"]
        assert consoles[1] == {"alias": "serial1", "type": kind, "supported": False}

    def test_unknown_console(self, shared, shared_guest):
        path = f"/v1/guests/{shared_guest.name}/tokens"
        answer = shared.rest("POST", path, {"console": "serial7"})
        assert_problem(answer, 404, "no_such_console", "serial7", "it has: serial0")
        assert_one_line(shared.cli("token", shared_guest.name, "--console", "serial7"), "serial0")

    @pytest.mark.parametrize(
        ("field", "value"),
        [("mode", "rwx"), ("ttl", 0), ("ttl", "x"), ("escape", "q"), ("nonsense", 1)],
    )
    def test_bad_field(self, shared, shared_guest, field, value):
        answer = shared.rest("POST", f"/v1/guests/{shared_guest.name}/tokens", {field: value})
        assert_problem(answer, 422, "bad_request", field)

    def test_bad_api_key(self, shared, shared_guest):
        answer = shared.rest("POST", f"/v1/guests/{shared_guest.name}/tokens", {}, key="wrong")
        assert_problem(answer, 401, "unauthorized", "API key")

    def test_supervisor_away(self, make_stack, echo_guest):
        stack = make_stack("supervisor", "gateway", "api")
        token = stack.token(echo_guest.uuid)
        stack.end("supervisor")
        answer = stack.rest("POST", f"/v1/guests/{echo_guest.name}/tokens", {})
        assert_problem(answer, 503, "supervisor_unavailable", "supervisor")
        assert_one_line(stack.cli("token", echo_guest.name), "supervisor")
        assert_one_line(stack.cli("sessions"), "supervisor")
        with stack.connect(token) as terminal:
            code, reason = terminal.ended()
            assert code == 4503
            assert "console service" in reason

    def test_libvirt_away(self, libvirtd, make_stack, echo_guest):
        stack = make_stack("supervisor", "api")
        assert stack.rest("GET", "/healthz/ready")[1]["libvirt"] == "ok"
        path = f"/v1/guests/{echo_guest.name}/tokens"
        libvirtd.stop_daemon()
        try:
            assert_problem(stack.rest("POST", path, {}), 503, "libvirt_unavailable", "libvirt")
            assert_one_line(stack.cli("token", echo_guest.name), "libvirt")
            status, health = stack.rest("GET", "/healthz/ready")
            assert (status, health["libvirt"]) == (503, "unavailable")
        finally:
            libvirtd.start()
        assert stack.rest("POST", path, {})[0] == 201
        assert stack.rest("GET", "/healthz/ready")[1]["libvirt"] == "ok"

    def test_libvirt_hangs(self, libvirtd, make_stack, echo_guest):
        stack = make_stack("supervisor", "gateway", "api")
        path = f"/v1/guests/{echo_guest.name}/tokens"
        token = stack.rest("POST", path, {"ttl": 120})[1]["token"]
        libvirtd.freeze()
        try:
            assert_problem(stack.rest("POST", path, {}), 503, "libvirt_unavailable", "libvirt")
            with stack.connect(token) as terminal:
                code, reason = terminal.ended(seconds=20)
                assert code == 4503
                assert "libvirt" in reason
        finally:
            libvirtd.thaw()
        assert_attaches(stack, token)


class TestConnecting:
    def test_no_token(self, shared):
        for url_token in (None, ""):
            with shared.connect(url_token) as terminal:
                code, reason = terminal.ended()
                assert code == 4400
                assert "token" in reason

    def test_wrong_used_and_expired_tokens_get_one_answer(self, shared, shared_guest):
        issued = shared.issue(shared_guest.uuid, ttl=1)
        expired = issued["token"]
        used = shared.token(shared_guest.uuid)
        assert_attaches(shared, used)
        assert rig.eventually(lambda: time.time() > issued["expires_at"] + 0.1)
        answers = set()
        for token in ("wrong", "A" * 43, "%00", "%C3%A9", used, expired):
            with shared.connect(token) as terminal:
                answers.add(terminal.ended())
                assert terminal.output == b""
        (answer,) = answers
        assert answer[0] == 4401
        assert "used" in answer[1]
        assert "expired" in answer[1]

    def test_a_token_of_enormous_length(self, shared):
        with shared.connect("A" * 30_000) as terminal:
            assert terminal.ended()[0] in (4400, 4401)
        assert shared.ask("health")["ok"]

    def test_libvirt_away_keeps_the_token(self, libvirtd, stack, echo_guest):
        token = stack.token(echo_guest.uuid, ttl=120)
        libvirtd.stop_daemon()
        try:
            with stack.connect(token) as terminal:
                code, reason = terminal.ended(seconds=20)
                assert code == 4503
                assert "libvirt" in reason
                assert libvirtd.directory not in reason, "tells the world of our paths"
                assert reason.endswith((".", "\u2026")), "not a sentence, or cut within a word"
        finally:
            libvirtd.start()
        assert_attaches(stack, token)

    def test_console_held_by_virsh(self, libvirtd, stack, echo_guest):
        token = stack.token(echo_guest.uuid, ttl=120)
        virsh = ["virsh", "--connect", libvirtd.uri, "console", echo_guest.uuid]
        with Pty(virsh) as held:
            held.read_until(b"Escape character")
            held.send(b"mine")
            held.read_until(b"mine")
            with stack.connect(token) as terminal:
                code, reason = terminal.ended()
                assert code == 4409
                assert "virsh console" in reason
            stack.wait_free()
            held.send(b"still mine")
            held.read_until(b"still mine")
            held.send(b"\x1d")
            held.wait()
        assert_attaches(stack, token)

    def test_guest_removed_after_the_token(self, shared, make_guest):
        guest = make_guest(state="off")
        token = shared.token(guest.uuid)
        guest.undefine()
        with shared.connect(token) as terminal:
            code, reason = terminal.ended()
            assert code == 4404
            assert "no longer exists" in reason


NAMES = [
    "...",
    ".hidden",
    "..a",
    "two words",
    "  ",
    "-x",
    "\u00fcml\u00e4ut \u20ac",
    "a'\"&<b>",
    "a%2Fb",
    "a+serial0",
    "$(id)`id`;|\\",
    "x" * 200,
    "00000000-0000-0000-0000-000000000001",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_guest_of_any_name_is_served(shared, make_guest, name):
    guest = make_guest(name=name)
    raw = "".join(f"%{byte:02X}" for byte in name.encode())
    status, token = shared.rest("POST", f"/v1/guests/{raw}/tokens", {})
    assert (status, token["guest"], token["uuid"]) == (201, name, guest.uuid)
    assert shared.cli("token", "--json", "--", name).returncode == 0
    with shared.connect(token["token"]) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
        (session,) = shared.wait_sessions("connected")
        assert session["guest"] == name
        (socket,) = rig.files_below(shared.consoles)
        assert len(socket.encode()) <= 107
        assert socket.removeprefix(shared.consoles + "/").count("/") == 0
        assert shared.rest("GET", f"/v1/guests/{raw}")[1]["sessions"] == [session["id"]]
    shared.wait_free()


def test_a_guest_whose_encoded_name_is_too_long_for_a_socket_is_served(shared, make_guest):
    guest = make_guest(name="\u00e9" * 100, state="off")  # libvirt cannot start it, with our paths
    with shared.open(guest.name) as terminal:
        terminal.read_until(b"waiting for its start.]")
        assert rig.files_below(shared.consoles) == [f"{shared.consoles}/{guest.uuid}.sock"]
    shared.wait_free()


@pytest.mark.parametrize(
    "name", ["a/b", "../../etc/passwd", "/", "x" * 300, "a\nb", "\u00e9" * 300]
)
def test_names_that_no_guest_can_have(shared, make_guest, name):
    with pytest.raises(VirshError):
        make_guest(name=name, state="off")
    raw = "".join(f"%{byte:02X}" for byte in name.encode())
    answer = shared.rest("POST", f"/v1/guests/{raw}/tokens", {})
    assert_problem(answer, 404, "no_such_guest")
    assert len(answer[1]["detail"]) < 300
    assert_one_line(shared.cli("token", "--", name), "no guest")


@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_a_url_takes_for_a_path(shared, name):
    raw = "".join(f"%{byte:02X}" for byte in name.encode())
    assert_problem(shared.rest("POST", f"/v1/guests/{raw}/tokens", {}), 404, "no_such_guest")
    assert_one_line(shared.cli("token", name), "no guest")
