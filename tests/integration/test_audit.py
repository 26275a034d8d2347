"""The audit log of real services: who did what, to which console, and that all of it is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from serial_console.errors import CloseCode

from .. import documents, rig
from ..journaled import Journaled
from ..stack import KEY_NAME, Stack


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "audit" / "audit.log")


@pytest.fixture
def audited(make_stack, path):
    os.mkdir(os.path.dirname(path))
    return make_stack("supervisor", "gateway", "api", log={"level": "error", "audit": path})


def lines(path):
    with open(path, encoding="ascii") as file:
        return [json.loads(line) for line in file]


def events(path, *names):
    """The lines of these events, without what every line has."""
    wanted = [one for one in lines(path) if one["event"] in names]
    return [
        {key: value for key, value in one.items() if key not in ("seq", "prev", "hash", "time")}
        for one in wanted
    ]


def one(path, name):
    """The only line of an event, once it is there."""
    assert rig.eventually(lambda: bool(events(path, name)))
    (found,) = events(path, name)
    return found


def verified(stack, *files, status=0):
    done = stack.cli("audit", "verify", *files)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def test_a_session_from_its_token_to_its_end(audited, path, echo_guest):
    began = time.time()
    fields = {"user": "alice", "takeover": True}
    issued = audited.rest("POST", f"/v1/guests/{echo_guest.name}/tokens", fields)[1]
    with audited.connect(issued["token"]) as terminal:
        terminal.send(b"hello")
        terminal.read_until(b"hello")
        (session,) = audited.wait_sessions("connected")
        with audited.connect(issued["token"]) as second:
            assert second.ended()[0] == 4401
    audited.wait_free()
    about = {
        "guest": echo_guest.name,
        "uuid": echo_guest.uuid,
        "console": "serial0",
        "mode": "rw",
        "user": "alice",
    }
    token = one(path, "token_issued")
    assert token.pop("expires_at") == pytest.approx(began + 30, abs=20)
    asked = {"key": KEY_NAME, "by": "", "uid": os.geteuid()}
    assert token == {
        "event": "token_issued",
        "token": issued["id"],
        **about,
        "takeover": True,
        "resume": 0,
        "client_address": "",
        **asked,
    }
    ids = {"session": session["id"], "token": issued["id"], "key": KEY_NAME}
    seen = {**ids, **about, "client": session["client"]}
    assert one(path, "token_redeemed") == {"event": "token_redeemed", **seen, "again": False}
    assert one(path, "session_opened") == {"event": "session_opened", **seen}
    refused = one(path, "token_refused")
    assert (refused["token"], refused["code"], refused["why"]) == (
        issued["id"],
        "bad_token",
        "used",
    )
    closed = one(path, "session_closed")
    assert 0 < closed.pop("seconds") < time.time() - began
    assert closed == {
        "event": "session_closed",
        **seen,
        "code": CloseCode.ENDED,
        "reason": "The client closed.",
        "bytes_in": 5,
        "bytes_out": 5,
        "skipped": 0,
    }
    assert rig.eventually(lambda: bool(events(path, "api_request")))
    request = one(path, "api_request")
    assert (request["key"], request["route"], request["status"]) == (
        KEY_NAME,
        "/v1/guests/{guest}/tokens",
        201,
    )
    assert all(one["time"].endswith("Z") and len(one["time"]) == 24 for one in lines(path))
    count = len(lines(path))
    assert f"{count} lines, 1 to {count}: none altered" in verified(audited)


def test_a_takeover_a_closing_and_a_lost_relay(audited, path, echo_guest):
    with audited.open(echo_guest.uuid, user="ann") as first:
        (ann,) = audited.wait_sessions("connected")
        with audited.open(echo_guest.uuid, user="bob", takeover=True) as second:
            assert first.ended()[0] == 4410
            (bob,) = audited.wait_sessions("connected")
            audited.ask("close", id=bob["id"], by="root")
            assert second.ended()[0] == 4411
    audited.wait_free()
    taken = one(path, "session_taken_over")
    assert taken["session"] == ann["id"]
    assert (taken["by_session"], taken["by_user"]) == (bob["id"], "bob")
    asked = one(path, "close_asked")
    assert (asked["session"], asked["by"], asked["uid"]) == (bob["id"], "root", os.geteuid())
    with audited.open(echo_guest.uuid) as third:
        (lost,) = audited.wait_sessions("connected")
        os.kill(lost["relay_pid"], signal.SIGKILL)
        assert third.ended()[0] == 4412
    audited.wait_free()
    ends = {one["session"]: one["code"] for one in events(path, "session_closed")}
    assert ends == {ann["id"]: 4410, bob["id"]: 4411, lost["id"]: 4412}
    verified(audited)


def test_refusals_say_why(audited, path, make_guest):
    guest = make_guest("echo")
    audited.connect("wrong").close()
    expired = audited.issue(guest.uuid, ttl=1)
    revoked = audited.issue(guest.uuid)
    assert audited.ask("revoke", id=revoked["id"], by="root")["ok"]
    elsewhere = audited.issue(guest.uuid, client_address="192.0.2.1")
    for token in revoked, elsewhere:
        assert not audited.redeem(token["token"], client="127.0.0.1:1")["ok"]
    with audited.open(guest.uuid, user="ann"):
        audited.wait_sessions("connected")
        busy = audited.issue(guest.uuid, user="bob")
        assert audited.redeem(busy["token"])["code"] == "in_use"
    audited.wait_free()
    # Tokens end by a clock that nobody sets, which the wall clock may be ahead of.
    rig.eventually(lambda: time.time() > expired["expires_at"] + 0.5)
    assert audited.redeem(expired["token"])["code"] == "bad_token"
    why = {one["token"]: (one["code"], one["why"]) for one in events(path, "token_refused")}
    assert why.pop(busy["id"])[0] == "in_use"
    assert "another address" in why.pop(elsewhere["id"])[1]
    assert why == {
        "": ("bad_token", "unknown"),
        revoked["id"]: ("bad_token", "revoked"),
        expired["id"]: ("bad_token", "expired"),
    }
    assert audited.ask("issue", guest="no such guest", by="eve")["code"] == "no_such_guest"
    (issue,) = events(path, "issue_refused")
    assert (issue["code"], issue["by"]) == ("no_such_guest", "eve")
    audited.rest("GET", "/v1/guests", key="wrong")
    assert one(path, "api_unauthorized")["source"] == "127.0.0.1"
    assert audited.cli("key", "add", "watch", "--mode", "ro").returncode == 0
    assert one(path, "key_added")["key"] == "watch"


def test_who_guesses_tokens_cannot_fill_the_disk(audited, path, echo_guest):
    attempts = 0

    def guess():
        nonlocal attempts
        attempts += 1
        before = len(events(path, "token_refused"))
        assert audited.redeem("wrong")["code"] == "bad_token"
        return len(events(path, "token_refused")) > before

    told = [guess() for _ in range(100)]
    assert told.count(True) < 50
    assert rig.eventually(guess)
    refused = events(path, "token_refused")
    assert refused[-1]["left_out"] > 0
    assert len(refused) + sum(one["left_out"] for one in refused) == attempts
    verified(audited)


def test_names_from_outside_stay_data(audited, path, make_guest):
    guest = make_guest("echo", name='a"b\\c\u2028d\u00e9')
    user = "\U0001f600" * 120 + '"}'
    audited.issue(guest.uuid, user=user, by='x\n{"event":"forged"}\x1b[2J' + "y" * 1000)
    issued = one(path, "token_issued")
    assert (issued["guest"], issued["user"]) == (guest.name, user)
    assert issued["by"].startswith('x\n{"event":"forged"}\x1b[2J')
    assert len(issued["by"]) == 256
    with open(path, "rb") as file:
        assert all(byte == 10 or 32 <= byte < 127 for byte in file.read())
    verified(audited)


# ---- keys


def test_what_a_revoked_key_has_given(make_stack, path, make_guest):
    os.mkdir(os.path.dirname(path))
    stack = make_stack("supervisor", "gateway", "api", log={"audit": path})
    guest = make_guest("echo")
    other = stack.cli("key", "add", "other").stdout.strip()

    def issue(key=None, **fields):
        return stack.rest("POST", f"/v1/guests/{guest.uuid}/tokens", fields, key)[1]

    with (
        stack.connect(issue()["token"]) as session,
        stack.connect(issue(other, mode="ro")["token"]) as others,
    ):
        stack.wait_sessions("connected", "connected")
        unused, kept = issue(takeover=True), issue(other, mode="ro")
        done = stack.cli("key", "revoke", KEY_NAME)
        assert (done.returncode, done.stdout) == (0, "1 unused tokens revoked, 0 sessions closed\n")
        assert stack.redeem(unused["token"])["code"] == "bad_token"
        assert issue()["code"] == "unauthorized"
        session.send(b"x")
        session.read_until(b"x")
        # The supervisor restarts; the sessions' keys are not forgotten.
        stack.end("supervisor", signal.SIGUSR1)
        stack.start("supervisor")
        stack.wait_sessions("connected", "connected")
        done = stack.cli("key", "revoke", KEY_NAME, "--close")
        assert (done.returncode, done.stdout) == (0, "0 unused tokens revoked, 1 sessions closed\n")
        assert session.ended() == (4411, "Your access to this console was revoked.")
        (left,) = stack.wait_sessions("connected")
        assert left["mode"] == "ro"
        assert stack.redeem(kept["token"])["code"] == "bad_token"  # died with its supervisor
        others.vanish()
    stack.wait_free()
    told = events(path, "key_revoked")
    assert [(one["key"], one["tokens"], one["sessions"]) for one in told] == [
        (KEY_NAME, 1, 0),
        (KEY_NAME, 0, 1),
    ]
    assert len(events(path, "session_adopted")) == 2
    assert verified(stack)


# ---- the file


def test_it_goes_on_over_restarts_crashes_and_rotation(audited, path, echo_guest):
    with audited.open(echo_guest.uuid, user="ann") as terminal:
        audited.wait_sessions("connected")
        os.rename(path, path + ".1")
        audited.issue(echo_guest.uuid)
        audited.end("supervisor", signal.SIGKILL)
        with open(path, "ab") as file:
            file.write(b'{"seq":99,"prev":"')  # a power cut within a line
        audited.start("supervisor")
        (session,) = audited.wait_sessions("connected")
        terminal.send(b"x")
        terminal.read_until(b"x")
    audited.wait_free()
    assert [one["event"] for one in lines(path + ".1")][:2] == ["log_opened", "supervisor_started"]
    with open(path, "rb") as file:
        text = file.read()
    assert b'"log_opened"' in text.splitlines()[0]
    said = verified(audited, path + ".1", path)
    assert f"note: {path}, line 3: half a line" in said
    assert "as the running supervisor has it" in said
    closed = [one for one in text.splitlines() if b'"session_closed"' in one]
    assert json.loads(closed[0])["session"] == session["id"]


def test_verify_finds_what_was_done_and_says_where(audited, path, echo_guest):
    for number in range(5):
        audited.issue(echo_guest.uuid, user=f"user{number}")
    with open(path, "rb") as file:
        good = file.read()
    assert verified(audited).count("\n") == 2

    def changed(data):
        with open(path, "wb") as file:
            file.write(data)
        said = verified(audited, status=1)
        assert said.count("\n") == 1
        return said

    found = good.splitlines(keepends=True)
    assert f"{path}, line 4: it was altered" in changed(good.replace(b"user1", b"user9"))
    assert "line 4: line 4 is missing" in changed(b"".join(found[:3] + found[4:]))
    # By itself this is a good log; the running supervisor knows better.
    assert "line 7 is missing at the end" in changed(b"".join(found[:-1]))
    audited.end("supervisor")
    assert "no supervisor" not in changed(good.replace(b"user1", b"user9"))


@pytest.mark.parametrize("how", ["no directory", "others may write", "another supervisor"])
def test_a_file_that_cannot_be_used_is_one_clear_line(make_stack, tmp_path, libvirtd, how):
    path = str(tmp_path / "audit.log")
    setting = str(tmp_path / "no" / "audit.log") if how == "no directory" else path
    if how == "others may write":
        with open(path, "w"):
            os.chmod(path, 0o666)
    first = make_stack("supervisor", log={"audit": path}) if how == "another supervisor" else None
    directory = tmp_path / "second"
    directory.mkdir()
    second = Stack(libvirtd.uri, str(directory), str(directory), log={"audit": setting})
    done = second.cli("supervisor")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert setting in done.stderr
    assert first is None or first.ask("health")["ok"]


def test_a_full_disk_ends_no_session_and_is_told(audited, path, echo_guest, tmp_path):
    audited.issue(echo_guest.uuid)
    before = os.path.getsize(path)
    pid = audited.pid("supervisor")
    _limit_files(pid, before + 100)  # as a disk that has room for 100 bytes more
    with audited.open(echo_guest.uuid) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
    audited.wait_free()
    assert os.path.getsize(path) == before + 100
    _limit_files(pid, -1)
    audited.issue(echo_guest.uuid)
    said = verified(audited)
    assert "half a line" in said
    assert "4 events before it could not be written" in said
    assert "cannot be written: " in audited.services["supervisor"].logged()


def _limit_files(pid, size):
    """Set RLIMIT_FSIZE of a process: its writes end there, as on a disk that is full."""
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, -1))


# ---- the journal


def test_journald_gets_each_event_with_fields(libvirtd, run_dir, tmp_path, path, echo_guest):
    os.mkdir(os.path.dirname(path))
    with Journaled(libvirtd.uri, run_dir, str(tmp_path), log={"audit": path}) as stack:
        stack.start("supervisor")
        stack.issue(echo_guest.uuid, user="ann")
        ours = b"SYSLOG_IDENTIFIER=serial-console-audit\n"
        assert rig.eventually(lambda: sum(ours in one for one in stack.entries) == 2)
        started, issued = (one for one in stack.entries if ours in one)
    assert b"SERIAL_CONSOLE_EVENT=supervisor_started\n" in started
    for wanted in (
        b"PRIORITY=6\n",
        b"SERIAL_CONSOLE_EVENT=token_issued\n",
        b"SERIAL_CONSOLE_USER=ann\n",
        b"SERIAL_CONSOLE_GUEST=" + echo_guest.name.encode() + b"\n",
        b"SERIAL_CONSOLE_SEQ=3\n",
        b"SERIAL_CONSOLE_HASH=" + lines(path)[2]["hash"].encode() + b"\n",
    ):
        assert wanted in issued


JOURNALD = "/lib/systemd/systemd-journald"
_WITH_JOURNALD = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
if ! [ -s /etc/machine-id ]; then
    echo 0123456789abcdef0123456789abcdef > /run/id
    mount --bind /run/id /etc/machine-id
fi
"$1" & trap "kill $!; wait $! || true" EXIT
until [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
"$2" -c "$3" >&2
journalctl --sync
journalctl -q -o json SERIAL_CONSOLE_USER=ann
eval "$4"
"""
_SEND = """
from serial_console import audit, chain, journal
fields = {"guest": "web\\nSERIAL_CONSOLE_USER=root", "user": "ann"}
assert journal.Journal().send(audit._entry("token_issued", fields, chain.Head(7, "ab")))
fields = {"guest": "web-1", "user": "bob"}
assert journal.Journal().send(audit._entry("token_issued", fields, chain.Head(8, "cd")))
"""


def test_a_real_journald_takes_the_fields_apart():
    if not os.access(JOURNALD, os.X_OK):
        rig.missing("systemd-journald")
    limited = "timeout", "-k", "2", "60", "sh", "-c", _WITH_JOURNALD, "sh"
    command = rig.with_own_mounts(*limited)
    done = subprocess.run(
        [*command, JOURNALD, sys.executable, _SEND, documents.block("docs/audit.md", "journal")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, _, shown = done.stdout.partition("\n")
    entry = json.loads(found)
    assert entry["SERIAL_CONSOLE_GUEST"] == "web\nSERIAL_CONSOLE_USER=root"
    assert entry["SERIAL_CONSOLE_USER"] == "ann"
    assert entry["SERIAL_CONSOLE_SEQ"] == "7"
    assert entry["SYSLOG_IDENTIFIER"] == "serial-console-audit"
    assert entry["PRIORITY"] == "6"
    assert len(shown.splitlines()) == 1
    assert "web-1" in shown
