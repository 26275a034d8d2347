"""``serial-console run``, ``attach`` and the listings, as an operator meets them."""

import json
import os
import re
import signal
import subprocess

import psutil
import pytest

from tests import rig
from tests.clients import Pty
from tests.stack import alive, descendants


class TestRun:
    def services(self, stack):
        """Return the pids of the three by name."""
        found = {}
        for child in psutil.Process(stack.pid("run")).children():
            found[child.cmdline()[-1]] = child.pid
        assert sorted(found) == ["api", "gateway", "supervisor"]
        return found

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_serves_and_ends_with_0_on_a_signal(self, make_stack, echo_guest, number):
        stack = make_stack("run")
        status, issued = stack.rest("POST", f"/v1/guests/{echo_guest.name}/tokens", {})
        assert status == 201
        with stack.connect(issued["token"]) as terminal:
            terminal.send(b"x")
            terminal.read_until(b"x")
            left = descendants(stack.pid("run"))
            assert len(left) >= 5  # three services, a relay, a gateway's child
            assert stack.end("run", number) == 0
            assert terminal.ended()[0] == 4503
        assert not any(alive(process.pid) for process in left)
        assert rig.files_below(stack.run_dir) == []

    @pytest.mark.parametrize("victim", ["supervisor", "gateway", "api"])
    def test_ends_all_when_one_is_killed(self, make_stack, echo_guest, victim):
        stack = make_stack("run")
        with stack.open(echo_guest.uuid) as terminal:
            terminal.send(b"x")
            terminal.read_until(b"x")
            left = descendants(stack.pid("run"))
            os.kill(self.services(stack)[victim], signal.SIGKILL)
            assert stack.services["run"].wait() == 1
            terminal.ended()
        assert not any(alive(process.pid) for process in left)
        assert f"the {victim} was killed by SIGKILL" in stack.logs()
        # A killed process cannot remove its own sockets; the next one replaces them.
        own = {"supervisor": {"redeem.sock", "admin.sock"}, "api": {"api.sock"}}.get(victim, set())
        assert {os.path.basename(path) for path in rig.files_below(stack.run_dir)} <= own
        stack.start("run")
        assert stack.ask("health")["ok"]


class TestAttach:
    def test_types_and_ends_with_the_escape_key(self, shared, shared_guest):
        with Pty([*shared.program, "attach", shared_guest.name]) as terminal:
            terminal.read_until(b"the escape key is ^]")
            assert terminal.raw, "what is typed once this is shown must not be the shell's"
            terminal.send(b"\x03hello")  # Ctrl-C is for the guest
            terminal.read_until(b"\x03hello")
            terminal.send(b"\x1d")
            assert terminal.wait() == 0
            assert not terminal.raw
            terminal.read_until(b"escape key")
        shared.wait_free()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_restores_the_terminal_when_it_is_told_to_end(self, shared, shared_guest, number):
        with Pty([*shared.program, "attach", shared_guest.name]) as terminal:
            assert rig.eventually(lambda: terminal.raw)
            terminal.send(b"\x01x")
            terminal.read_until(b"\x01x")  # the guest's echo: the terminal's own is ^Ax
            terminal.process.send_signal(number)
            assert terminal.wait() == 1
            assert not terminal.raw
            terminal.read_until(number.name.encode())
        shared.wait_free()

    def test_ends_with_0_with_its_guest_and_with_1_when_closed(self, make_stack, make_guest):
        stack = make_stack("supervisor", session={"on_guest_stop": "close"})
        for status in (0, 1):
            guest = make_guest("echo")
            with Pty([*stack.program, "attach", guest.name]) as terminal:
                assert rig.eventually(lambda: terminal.raw)
                if status:
                    assert stack.cli("close", "--all").returncode == 0
                else:
                    guest.destroy()
                assert terminal.wait() == status
                terminal.read_until(b"operator" if status else b"The guest was switched off.")
                assert not terminal.raw
            stack.wait_free()

    def test_a_used_console_is_refused_before_the_terminal_is_touched(self, shared, shared_guest):
        with shared.open(shared_guest.uuid, user="alice"):
            shared.wait_sessions("connected")
            with Pty([*shared.program, "attach", shared_guest.name]) as terminal:
                terminal.read_until(b"alice")
                assert terminal.wait() == 1
                assert not terminal.raw
            with Pty([*shared.program, "attach", shared_guest.name, "--takeover"]) as terminal:
                assert rig.eventually(lambda: terminal.raw)
                terminal.send(b"\x01x")
                terminal.read_until(b"\x01x")
                terminal.send(b"\x1d")
                assert terminal.wait() == 0
        shared.wait_free()

    def test_a_pipe(self, shared, shared_guest):
        done = subprocess.run(
            [*shared.program, "attach", shared_guest.name],
            input=b"all of it\x1d\x11 and these",
            capture_output=True,
            timeout=30,
            cwd="/",
        )
        assert (done.returncode, done.stdout) == (0, b"all of it\x1d\x11 and these")
        shared.wait_free()


class TestListings:
    def test_guests_and_sessions_as_rest_has_them(self, make_stack, make_guest):
        stack = make_stack("supervisor", "gateway", "api")
        on = make_guest("echo", serial=["pty", "null"])
        off = make_guest("echo", name="off \u20ac", state="off")
        with stack.open(on.uuid, user="alice"):
            stack.wait_sessions("connected")
            listed = {one["name"]: one for one in json.loads(stack.cli("guests", "--json").stdout)}
            (session,) = json.loads(stack.cli("sessions", "--json").stdout)
            assert listed[on.name] == {
                "name": on.name,
                "uuid": on.uuid,
                "state": "running",
                "consoles": [
                    {"alias": "serial0", "type": "pty", "supported": True},
                    {"alias": "serial1", "type": "null", "supported": False},
                ],
                "sessions": [session["id"]],
            }
            assert listed[off.name]["state"] == "shutoff"
            assert listed[off.name]["consoles"][0]["alias"] == "serial0"
            assert stack.rest("GET", "/v1/guests")[1]["guests"] == list(listed.values())
            (over_rest,) = stack.rest("GET", "/v1/sessions")[1]["sessions"]
            passing = {"idle": 0, "memory": 0, "cpu": 0}
            assert over_rest | passing == session | passing
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", session["opened_at"])
            assert (session["user"], session["relay_pid"] > 1) == ("alice", True)
            table = stack.cli("sessions").stdout
            assert session["id"] in table
            assert "alice" in table
            assert off.name in stack.cli("guests").stdout
        stack.wait_free()
        assert json.loads(stack.cli("sessions", "--json").stdout) == []

    def test_more_guests_than_a_page_holds(self, make_stack, tmp_path):
        """libvirt's own test driver knows what it finds in a file."""
        names = [f"guest-{number:04}{'x' * 150}" for number in range(500)]
        guests = "".join(
            f"<domain type='test'><name>{name}</name><memory>1</memory><os><type>hvm</type></os>"
            "<devices><serial type='pty'/></devices></domain>"
            for name in reversed(names)
        )
        there = tmp_path / "node.xml"
        there.write_text(f"<node>{guests}</node>")
        stack = make_stack("supervisor", libvirt={"uri": f"test://{there}"})
        pages = [stack.ask("guests")]
        while pages[-1]["next"]:
            pages.append(stack.ask("guests", after=pages[-1]["next"]))
        assert [one["name"] for page in pages for one in page["guests"]] == names
        assert len(pages) > 1
        assert [one["name"] for one in json.loads(stack.cli("guests", "--json").stdout)] == names
        assert stack.ask("metrics")["guests"] == 500

    def test_a_token_in_each_form(self, shared, shared_guest):
        plain = shared.cli("token", shared_guest.name)
        assert (plain.returncode, plain.stderr) == (0, "")
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", plain.stdout)
        url = shared.cli("token", shared_guest.uuid, "--url").stdout
        base = f"http://127.0.0.1:{shared.gateway_port}"
        assert url.startswith(f"{base}/serial.html#token=")
        answer = json.loads(
            shared.cli("token", shared_guest.name, "--json", "--user", "bob").stdout
        )
        assert answer["user"] == "bob"
        for token in (plain.stdout.strip(), url.partition("=")[2].strip(), answer["token"]):
            with shared.connect(token) as terminal:
                terminal.send(b"x")
                terminal.read_until(b"x")
            shared.wait_free()

    def test_wrong_usage(self, make_stack):
        stack = make_stack()
        for arguments in ([], ["nonsense"], ["token"], ["token", "x", "--ttl", "0"], ["close"]):
            done = stack.cli(*arguments)
            assert (done.returncode, done.stdout) == (2, "")
            assert "usage:" in done.stderr
