"""Three users, as the units have them: each can do its own work, and nothing of another's.

The test plays systemd: it makes the directories and the sockets, and hands the sockets on.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from serial_console.demo import host
from tests import intruder, rig
from tests.clients import echo
from tests.stack import Service, Stack, descendants, http

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGES = os.path.dirname(os.path.dirname(psutil.__file__))
SUPERVISOR = rig.NOBODY
"""As the tests' libvirtd, so that this user may use it, and of the five only this one."""
GATEWAY, API, MANAGER, OTHER = range(61901, 61905)
"""Uids, and the same gids; nobody has them."""
REDEEM, ADMIN, REST = range(61911, 61914)
GROUPS = {GATEWAY: REDEEM, API: ADMIN, MANAGER: REST}
USERS = {"supervisor": SUPERVISOR, "gateway": GATEWAY, "api": API}

SEEN_BY_ALL = 'mount --bind "$0" /mnt && exec "$@"'
"""The checkout may be where only root can go."""


def rights(uid):
    """The command that gives a program a user's rights."""
    groups = f"--groups={GROUPS[uid]}" if uid in GROUPS else "--clear-groups"
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", groups]


def python(uid, *arguments):
    """A program of this checkout with a user's rights."""
    paths = ROOT, PACKAGES
    inside = [f"/mnt/{os.path.relpath(path, ROOT)}" for path in paths]
    return [
        "unshare", "--mount", "sh", "-c", SEEN_BY_ALL, ROOT,
        *rights(uid),
        "env", f"PYTHONPATH={':'.join(inside)}", os.path.realpath(sys.executable), "-P",
        *(argument.replace(ROOT, "/mnt") for argument in arguments),
    ]  # fmt: skip


class Separate(Stack):
    """Services of three users; the sockets are ours, and stay when a service restarts."""

    def prepare(self):
        self.api_path = os.path.join(self.run_dir, "api", "api.sock")
        for path, uid, gid, mode in (
            (self.consoles, SUPERVISOR, REDEEM, 0o2710),
            (self.control, SUPERVISOR, SUPERVISOR, 0o711),
            (os.path.dirname(self.api_path), 0, 0, 0o711),
        ):
            os.mkdir(path)
            os.chown(path, uid, gid)
            os.chmod(path, mode)
        self.sockets = {
            "supervisor": [
                unix(self.redeem_path, SUPERVISOR, REDEEM),
                unix(self.admin_path, SUPERVISOR, ADMIN),
            ],
            "gateway": [socket.create_server(("127.0.0.1", self.gateway_port))],
            "api": [
                socket.create_server(("127.0.0.1", self.api_port)),
                unix(self.api_path, API, REST),
            ],
        }
        keys = os.path.join(self.directory, "keys", "api-keys")
        os.mkdir(os.path.dirname(keys))
        with open(keys, "xb"):
            os.chmod(keys, 0o640)
            os.chown(keys, 0, API)
        os.chmod(self.config, 0o644)
        return self

    def _launch(self, name):
        above = 20  # those that they become
        numbers = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, above) for one in self.sockets[name]]
        moves = " ".join(f"{at}<&{number}-" for at, number in enumerate(numbers, 3))
        activate = f'exec {moves}; export LISTEN_PID=$$ LISTEN_FDS={len(numbers)}; exec "$@"'
        program = python(USERS[name], "-m", "serial_console", "--config", self.config, name)
        log = os.path.join(self.directory, f"{name}.log")
        command = ["bash", "-c", activate, "bash", *program]
        self.services[name] = Service(name, command, log, numbers)
        for number in numbers:
            os.close(number)
        return self.services[name]

    def close(self):
        super().close()
        for sockets in self.sockets.values():
            for one in sockets:
                if one.family == socket.AF_UNIX:
                    os.unlink(one.getsockname())
                one.close()


def unix(path, uid, gid):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    os.chmod(path, 0o660)
    os.chown(path, uid, gid)
    sock.listen()
    return sock


def attack(uid, *attempts):
    """Try something with a user's rights; return what came of it."""
    done = subprocess.run(
        python(uid, intruder.__file__, json.dumps(attempts)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def separate(libvirtd, run_dir):
    if os.geteuid() != 0:
        rig.missing("root, to act as three users")
    with host.short_directory("sc-sep-") as directory:
        one = Separate(libvirtd.uri, run_dir, directory, api={"peer_uids": [MANAGER]}).prepare()
        try:
            yield one.start("supervisor", "gateway", "api")
        finally:
            one.close()


def relay_of(stack):
    (session,) = stack.sessions()
    return session["relay_pid"]


def uid_of(pid):
    return psutil.Process(pid).uids().real


def test_the_whole_path_with_three_users_and_a_restart_of_each(separate, make_guest):
    one = make_guest()
    status, issued = separate.rest("POST", f"/v1/guests/{one.name}/tokens", {"user": "alice"})
    assert status == 201
    with separate.connect(issued["token"]) as terminal:
        assert echo(terminal, b"hello") == b"hello"
        (session,) = separate.wait_sessions("connected")
        relay = session["relay_pid"]
        assert [uid_of(separate.pid(name)) for name in USERS] == [SUPERVISOR, GATEWAY, API]
        assert {uid_of(process.pid) for process in descendants(separate.pid("gateway"))} == {
            GATEWAY
        }
        assert uid_of(relay) == SUPERVISOR

        separate.end("supervisor", signal.SIGUSR1)
        separate.start("supervisor")
        assert echo(terminal, b"adopted") == b"adopted"
        separate.end("api")
        separate.start("api")
        status, listed = separate.rest("GET", "/v1/sessions")
        assert [found["relay_pid"] for found in listed["sessions"]] == [relay]
        separate.end("gateway")
        assert terminal.ended()[0] == 1012
    separate.wait_free()
    separate.start("gateway")
    with separate.open(one.uuid) as again:
        assert echo(again, b"again") == b"again"
        (session,) = separate.wait_sessions("connected")
        assert separate.rest("DELETE", f"/v1/sessions/{session['id']}")[0] == 204
        assert again.ended()[0] == 4411
    separate.wait_free()


def test_no_listener_leaks_into_a_relay_or_a_gateway_s_child(separate, make_guest):
    listening = {
        os.fstat(sock.fileno()).st_ino for sockets in separate.sockets.values() for sock in sockets
    }
    with separate.open(make_guest().uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        (relay,) = separate.wait_sessions("connected")
        (child,) = descendants(separate.pid("gateway"))
        for pid in (relay["relay_pid"], child.pid):
            held = {
                os.stat(f"/proc/{pid}/fd/{number}").st_ino
                for number in os.listdir(f"/proc/{pid}/fd")
            }
            assert not held & listening
        terminal.send(b"\x11")
        terminal.ended()
    separate.wait_free()


def test_the_gateway_s_rights_are_to_redeem_and_no_more(separate, make_guest, libvirtd):
    watched, unused = make_guest(), separate.issue(make_guest(state="off").uuid, ttl=600)
    relays = os.path.join(separate.control, "relays")
    supervisor, api = separate.pid("supervisor"), separate.pid("api")
    gateway = separate.pid("gateway")
    with separate.open(watched.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        (session,) = separate.wait_sessions("connected")
        relay, child = session["relay_pid"], session["gateway_pid"]
        (path,) = os.listdir(separate.consoles)
        (control,) = os.listdir(relays)
        path, control = os.path.join(separate.consoles, path), os.path.join(relays, control)

        # What it is for: redeeming. But it cannot guess, and asks in vain for anything else.
        guess, listing, issue, close, revoke = map(json.loads, attack(
            GATEWAY,
            ["ask", separate.redeem_path, {"v": 1, "op": "redeem", "token": "A" * 43}],
            ["ask", separate.redeem_path, {"v": 1, "op": "sessions"}],
            ["ask", separate.redeem_path, {"v": 1, "op": "issue", "guest": watched.uuid}],
            ["ask", separate.redeem_path, {"v": 1, "op": "close", "id": session["id"]}],
            ["ask", separate.redeem_path, {"v": 1, "op": "revoke", "id": unused["id"]}],
        ))  # fmt: skip
        assert guess["code"] == "bad_token"
        for refused in (listing, issue, close, revoke):
            assert (refused["ok"], refused["code"]) == (False, "unknown_op"), refused

        # A relay takes the process that redeemed the token, not another one of the same user.
        assert attack(GATEWAY, ["ask", path, {}]) == [""]

        denied = [
            ["ask", separate.admin_path, {"v": 1, "op": "sessions"}],
            ["ask", separate.api_path, {}],
            ["ask", control, {}],
            ["ask", libvirtd.socket, {}],
            ["listing", relays],
            ["listing", separate.consoles],
            ["listing", separate.control],
            ["plant", separate.consoles],
            ["plant", separate.control],
            ["plant", relays],
            ["replace", separate.redeem_path],
            ["replace", path],
            ["read", os.path.join(separate.directory, "keys", "api-keys")],
            # The other clients' too, although they are of the same user.
            *(["read", f"/proc/{pid}/environ"] for pid in (supervisor, relay, api, child, gateway)),
            ["read", f"/proc/{child}/mem"],
            ["read", f"/proc/{gateway}/mem"],  # it forks the process of every later client
        ]
        assert_denied(GATEWAY, denied, "EACCES")
        assert_denied(GATEWAY, on_processes(supervisor, relay, api), "EPERM")
        ours = [[what, pid] for pid in (child, gateway) for what in ("trace", "steal")]
        assert_denied(GATEWAY, ours, "EPERM")
        assert_denied(GATEWAY, [["become", 0], ["become", SUPERVISOR]], "EPERM")
        assert echo(terminal, b"still") == b"still"
        with separate.connect(unused["token"]) as other:  # it was not revoked
            separate.wait_sessions("connected", "waiting")
            other.send(b"\x11")
            assert other.ended()[0] == 1000
        terminal.send(b"\x11")
        assert terminal.ended()[0] == 1000
    separate.wait_free()


def test_the_api_s_rights_reach_no_console(separate, make_guest, libvirtd):
    with separate.open(make_guest().uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        (session,) = separate.wait_sessions("connected")
        (path,) = os.listdir(separate.consoles)
        token = separate.token(make_guest(state="off").uuid)
        assert json.loads(attack(API, ["ask", separate.admin_path, {"v": 1, "op": "sessions"}])[0])[
            "ok"
        ]
        assert_denied(
            API,
            [
                ["ask", separate.redeem_path, {"v": 1, "op": "redeem", "token": token}],
                ["ask", os.path.join(separate.consoles, path), {}],
                ["ask", libvirtd.socket, {}],
                ["listing", separate.consoles],
                ["listing", os.path.join(separate.control, "relays")],
                ["plant", separate.consoles],
                ["plant", separate.control],
                ["plant", os.path.dirname(separate.api_path)],
                ["replace", separate.admin_path],
            ],
            "EACCES",
        )
        pids = separate.pid("supervisor"), session["relay_pid"], separate.pid("gateway")
        assert_denied(API, on_processes(*pids), "EPERM")
        terminal.send(b"\x11")
        terminal.ended()
    separate.wait_free()


def test_who_is_in_no_group_reaches_nothing_and_a_manager_only_rest(separate):
    sockets = separate.redeem_path, separate.admin_path, separate.api_path
    assert_denied(OTHER, [["ask", path, {}] for path in sockets], "EACCES")
    assert_denied(MANAGER, [["ask", path, {}] for path in sockets[:2]], "EACCES")
    assert_denied(OTHER, [["listing", separate.consoles], ["listing", separate.control]], "EACCES")
    assert http(separate.api_port, "GET", "/v1/guests")[0] == 401


def on_processes(*pids):
    return [[what, pid] for pid in pids for what in ("kill", "trace", "steal")]


def assert_denied(uid, attempts, how):
    came_of = attack(uid, *attempts)
    got = [(attempt, one) for attempt, one in zip(attempts, came_of, strict=True) if one != how]
    assert not got, f"uid {uid} got: {got}"
