"""Each check of the doctor: what it says of what is right, and of what is not."""

import os
import pwd
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import psutil
import pytest

from serial_console import __version__, channel, config, control, keys
from serial_console.config import Api, Config, Gateway, Paths
from serial_console.consoles import consoles
from serial_console.doctor import files, host, libvirt, services, settings, tls
from serial_console.errors import SupervisorUnavailable
from tests import certs, fakes, rig

NOW = time.time()
DAY = 86400


def only(findings):
    (found,) = findings
    return found


@pytest.fixture
def nobody(run_dir):
    """A service's user, who may enter ``run_dir``: only root can look with their rights."""
    if os.geteuid() != 0:
        rig.missing("root, to look with another user's rights")
    os.chmod(run_dir, 0o755)
    yield "nobody"
    os.setgroups([])  # what a check leaves, which has a process of its own


def verdicts(findings):
    return [(one.check, one.status) for one in findings]


class TestSettings:
    def test_the_file(self, tmp_path):
        path = tmp_path / "config.toml"
        path.write_text("[gateway]\nlisten = '127.0.0.1:6083'\n")
        path.chmod(0o644)
        assert only(settings.file(str(path))) == ("config", "ok", str(path), "")
        path.chmod(0o664)
        found = only(settings.file(str(path)))
        assert (found.status, found.fix) == ("fail", f"chmod go-w {path}")
        path.chmod(0o644)
        path.write_text("[gateway]\nlisten = 5\n[log]\nlevels = 1\n")
        wrong = list(settings.file(str(path)))
        assert [one.status for one in wrong] == ["fail", "fail"]
        assert "line 2, key gateway.listen" in wrong[0].message

    def test_the_file_is_for_the_services(self, run_dir, nobody):
        path = os.path.join(run_dir, "config.toml")
        Path(path).touch(0o644)
        try:
            assert only(settings.file(path, [nobody])).status == "ok"
            os.chmod(path, 0o600)
            found = only(settings.file(path, [nobody]))
            assert found[:3] == ("config", "fail", f"nobody cannot read {path}")
        finally:
            os.unlink(path)

    def test_the_page_is_the_operator_s(self, tmp_path):
        assert verdicts(settings.page(str(tmp_path))) == [("page settings", "ok")] * 2
        (tmp_path / "defaults.json").write_text('{"theme": "dark"}')
        (tmp_path / "mandatory.json").write_text('{"theme": "dark",}')
        good, bad = settings.page(str(tmp_path))
        assert good[1:3] == ("ok", str(tmp_path / "defaults.json"))
        assert bad.status == "fail"
        assert f"cannot use {tmp_path / 'mandatory.json'}: it is not JSON" in bad.message

    @pytest.mark.parametrize(
        ("gateway", "status", "words"),
        [
            (Gateway(), "ok", "http://127.0.0.1:6083"),
            (
                Gateway(
                    public_url="https://c.example/x",
                    trusted_proxies=["127.0.0.1"],
                    allowed_origins=["https://m.example"],
                ),
                "ok",
                "https://c.example/x and from https://m.example",
            ),
            (Gateway(public_url="https://c.example"), "warn", "trusted_proxies is empty"),
            (Gateway(trusted_proxies=["127.0.0.1"]), "warn", "past the proxy"),
            (Gateway(listen="0.0.0.0:1", insecure=True, public_url="http://c"), "warn", "plain"),
            (
                Gateway(listen="192.0.2.1:1", tls_cert="c", public_url="https://localhost"),
                "warn",
                "each browser's own host",
            ),
            (Gateway(listen="0.0.0.0:1", tls_cert="c"), "warn", "no browser can use"),
            (Gateway(tls_cert="c", public_url="http://c.example"), "fail", "plain HTTP is refused"),
            (Gateway(tls_cert="c", allowed_origins=["http://m.example"]), "warn", "alters"),
        ],
    )
    def test_what_browsers_come_to(self, gateway, status, words):
        found = only(settings.origin(gateway))
        assert (found.check, found.status) == ("origin", status)
        assert words in found.message
        assert bool(found.fix) == (status != "ok")


class TestHost:
    def test_the_clock(self):
        assert only(host.clock(NOW, True, 0.01)).status == "ok"
        assert only(host.clock(NOW, False, 16)).status == "warn"
        assert only(host.clock(0, True, 0.01)).status == "fail"

    def test_the_kernel_is_asked_for_the_time_s_source(self):
        known, error = host.synchronised()
        assert isinstance(known, bool)
        assert 0 <= error < 3600

    def test_the_users(self):
        right = {
            "serial-console": {"serial-console", "libvirt"},
            "serial-console-gateway": {"serial-console-gateway", "serial-console-redeem"},
            "serial-console-api": {"serial-console-api", "serial-console-admin"},
        }
        assert verdicts(host.users(right, True)) == [("users", "ok")]
        assert verdicts(host.users({}, False)) == [("users", "ok")]
        assert verdicts(host.users({}, True)) == [("users", "warn")]
        lonely = right | {"serial-console-api": {"serial-console-api"}}
        found = only(host.users(lonely, True))
        assert found.status == "fail"
        assert "usermod -aG serial-console-admin serial-console-api" in found.fix
        mighty = right | {"serial-console-gateway": {"serial-console-redeem", "libvirt"}}
        assert only(host.users(mighty, True)).status == "warn"
        del right["serial-console-gateway"]
        found = only(host.users(right, True))
        assert (found.status, found.fix) == ("fail", "systemd-sysusers")

    def test_what_is_installed(self, tmp_path, monkeypatch):
        found = only(host.packages(str(tmp_path)))
        assert found.status == "ok"
        assert "websockify 0." in found.message
        assert verdicts(host.packages(str(tmp_path / "none"))) == [
            ("packages", "fail"),
            ("packages", "ok"),
        ]
        monkeypatch.setitem(host.API, "no_such_module", "no-such-package")
        assert verdicts(host.packages(str(tmp_path))) == [("packages", "warn"), ("packages", "ok")]
        monkeypatch.setitem(host.NEEDED, "no_such_module", "no-such-package")
        missing = next(host.packages(str(tmp_path)))
        assert missing[1:3] == ("fail", "the Python package no-such-package is missing")


class TestFiles:
    def test_directories(self, tmp_path, run_dir):
        def found(consoles):
            os.makedirs(tmp_path / "control", exist_ok=True)
            paths = Paths(consoles=str(consoles), control=str(tmp_path / "control"), api="/tmp/..")
            return next(files.directories(paths))

        good = Path(run_dir, "console")  # short enough
        good.mkdir(0o755)
        assert found(good).status == "ok"
        assert found(tmp_path / "none").status == "warn"
        good.chmod(0o777)
        assert found(good)[1:] == (
            "fail",
            f"{good} can be written by everybody (mode 0777)",
            f"chmod o-w {good}",
        )
        file = tmp_path / "file"
        file.touch()
        assert found(file).message == f"{file} is not a directory"
        long = tmp_path / ("x" * 80)
        long.mkdir()
        assert "too long" in found(long).message

    def test_a_directory_is_the_supervisor_s(self, run_dir, nobody):
        path = os.path.join(run_dir, "console")
        os.mkdir(path)

        def found():
            paths = Paths(consoles=path, control=path, api="/tmp/..")
            return next(files.directories(paths, nobody))

        assert f"the directory {path} is not writable for uid" in found().message
        os.chown(path, rig.NOBODY, -1)
        assert found().status == "ok"
        os.chmod(path, 0o775)
        os.chown(path, 12345, pwd.getpwnam(nobody).pw_gid)
        assert found()[1:] == (
            "fail",
            f"the directory {path} belongs to uid 12345, so that others could replace the sockets "
            "in it",
            f"give it to uid {rig.NOBODY} alone, or choose another one under [paths] in the "
            "configuration",
        )

    def test_sockets(self, run_dir, tmp_path):
        path = os.path.join(run_dir, "x.sock")
        assert only(files.sockets({path: True})).status == "fail"
        assert only(files.sockets({path: False})).status == "warn"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            try:
                os.chmod(path, 0o660)
                assert "nobody listens" in only(files.sockets({path: True})).message
                sock.listen()
                assert only(files.sockets({path: True})).status == "ok"
                os.chmod(path, 0o666)
                found = only(files.sockets({path: True}))
                assert (found.status, found.fix) == ("fail", f"chmod o= {path}")
            finally:
                os.unlink(path)
        file = tmp_path / "file"
        file.touch()
        assert only(files.sockets({str(file): True})).message == f"{file} is not a socket"

    def test_api_keys(self, tmp_path):
        path = str(tmp_path / "api-keys")
        case = Config(api=Api(keys=path))
        assert only(files.api_keys(case)).status == "warn"
        secret = keys.add(path, "manager")
        assert only(files.api_keys(case)) == ("api keys", "ok", f"{path}: 1 keys", "")
        os.chmod(path, 0o644)
        found = only(files.api_keys(case))
        assert found.status == "fail"
        assert found.fix == f"run: chmod g-w,o= {path}"
        os.chmod(path, 0o600)
        assert only(files.api_keys(case)).status == "ok"
        Path(path).write_text(secret + "\n")
        found = only(files.api_keys(case))
        assert found.status == "fail"
        assert secret not in str(found)

    def test_api_keys_are_for_the_api(self, run_dir, nobody):
        path = os.path.join(run_dir, "api-keys")
        keys.add(path, "manager")
        try:
            os.chown(path, 0, pwd.getpwnam(nobody).pw_gid)
            os.chmod(path, 0o640)
            case = Config(api=Api(keys=path))
            assert only(files.api_keys(case, nobody)).status == "ok"
            os.chmod(path, 0o600)
            found = only(files.api_keys(case, nobody))
            assert found.status == "fail"
            assert found.fix == f"chown root:nobody {path} && chmod 0640 {path}"
        finally:
            os.unlink(path)

    def test_the_audit_log(self, tmp_path):
        path = tmp_path / "audit.log"
        assert only(files.audit_log("")).status == "ok"
        assert only(files.audit_log(str(path))).status == "ok"
        assert only(files.audit_log(str(tmp_path / "none" / "audit.log"))).status == "fail"
        path.touch(0o600)
        assert only(files.audit_log(str(path))).status == "ok"
        path.chmod(0o644)
        assert only(files.audit_log(str(path))).fix == f"chmod g-w,o= {path}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate of a day, and its key."""
    return certs.make(tmp_path_factory.mktemp("tls"))


class TestTls:
    def test_they_are_for_the_gateway(self, pair, nobody):
        case = Gateway(tls_cert=pair[0], tls_key=pair[1])
        found = list(tls.check(case, time.time(), nobody))[-1]  # below a directory of root's
        assert found[:3] == (
            "tls",
            "fail",
            f"nobody cannot read {pair[0]}: the gateway does not start",
        )

    def test_none(self):
        assert only(tls.check(Gateway(), NOW)).status == "ok"

    def test_its_days(self, pair):
        case = Gateway(tls_cert=pair[0], tls_key=pair[1])

        def found(seconds):
            return list(tls.check(case, time.time() + seconds))[-1]

        # It is one of a day, which is meant to be renewed when a third of that is left.
        assert found(0).status == "ok"
        assert found(0.8 * DAY).status == "warn"
        assert found(2 * DAY).status == "fail"
        assert "has expired" in found(2 * DAY).message
        assert found(-2 * DAY).status == "fail"
        assert "not yet valid" in found(-2 * DAY).message

    def test_its_name(self, pair):
        case = Gateway(tls_cert=pair[0], tls_key=pair[1], public_url="https://127.0.0.1/x")
        assert verdicts(tls.check(case, time.time())) == [("tls key", "ok"), ("tls", "ok")]
        other = msgspec.structs.replace(case, public_url="https://other.example")
        assert verdicts(tls.check(other, time.time()))[-1] == ("tls name", "warn")

    def test_a_key_that_others_may_read(self, pair):
        case = Gateway(tls_cert=pair[0], tls_key=pair[1])
        os.chmod(pair[1], 0o644)
        try:
            found = next(tls.check(case, time.time()))
        finally:
            os.chmod(pair[1], 0o600)
        assert (found.check, found.status, found.fix) == (
            "tls key",
            "fail",
            f"chmod g-w,o= {pair[1]}",
        )

    def test_what_is_no_pair_or_not_there(self, pair, tmp_path):
        other = certs.make(tmp_path)
        case = Gateway(tls_cert=pair[0], tls_key=other[1])
        assert verdicts(tls.check(case, time.time())) == [("tls key", "ok"), ("tls", "fail")]
        none = Gateway(tls_cert=str(tmp_path / "none"), tls_key=str(tmp_path / "none"))
        assert verdicts(tls.check(none, time.time())) == [("tls key", "fail"), ("tls", "fail")]


class TestLibvirt:
    """What needs a libvirt: tests/integration/test_doctor.py."""

    @pytest.mark.parametrize(
        ("uri", "where"),
        [
            ("qemu:///system", "system"),
            ("qemu:///session", "session"),
            ("qemu+ssh://other/system", ""),
            ("qemu+unix:///session?socket=/x", ""),
        ],
    )
    def test_whose_files_count(self, uri, where):
        assert libvirt.local(uri) == where

    def test_virtlogd(self, tmp_path):
        def found(uri="qemu:///system"):
            return only(libvirt.virtlogd(uri, str(tmp_path), str(tmp_path)))

        assert found().status == "fail"
        assert found("qemu:///session").status == "ok"
        (tmp_path / "qemu.conf").write_text('#stdio_handler = "logd"\nstdio_handler = "file"\n')
        assert found().status == "ok"
        (tmp_path / "qemu.conf").unlink()
        (tmp_path / "virtlogd-sock").touch()
        assert found() == ("virtlogd", "ok", f"{tmp_path}/virtlogd-sock", "")

    def test_max_client_requests(self, tmp_path, monkeypatch):
        def found(uri="qemu:///system"):
            return only(libvirt.client_requests(uri, str(tmp_path), str(tmp_path)))

        file = tmp_path / "libvirtd.conf"
        assert found()[1:3] == ("ok", "5")
        file.write_text("#max_client_requests = 1\nmax_client_requests = 20\n")
        assert found()[1:3] == ("ok", "20")
        file.write_text("max_client_requests = 1\n")
        assert found().status == "warn"
        (tmp_path / "virtqemud-sock").touch()  # the other daemon's file counts
        assert found()[1:3] == ("ok", "5")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        (tmp_path / "libvirt").mkdir()
        (tmp_path / "libvirt/virtqemud.conf").write_text("max_client_requests = 2\n")
        assert found("qemu:///session").status == "warn"
        assert found("qemu+ssh://other/system").status == "ok"

    def test_locks(self, tmp_path):
        assert only(libvirt.locks(str(tmp_path))).status == "ok"
        (tmp_path / "LCK.._pts_1").write_text(f"{os.getpid():10}\n")
        assert only(libvirt.locks(str(tmp_path))).status == "ok"
        gone = subprocess.Popen(["true"])
        gone.wait()
        (tmp_path / "LCK.._pts_2").write_text(f"{gone.pid:10}\n")
        found = only(libvirt.locks(str(tmp_path)))
        assert (found.status, found.fix) == ("warn", f"rm {tmp_path}/LCK.._pts_2")

    def test_consoles(self, tmp_path):
        log = tmp_path / "log"
        log.touch()

        def found(devices, state="running"):
            xml = f"<domain><devices>{devices}</devices></domain>"
            guest = control.GuestInfo("web", "", state, consoles(xml))
            return only(libvirt.console(guest, xml))

        pty = found('<serial type="pty"/>')
        assert (pty.check, pty.status) == ("console web", "ok")
        assert "no log" in pty.message
        assert "getty" in pty.message
        null = found('<serial type="null"/>')
        assert null.status == "warn"
        assert '<serial type="pty"/>' in null.fix
        assert found("").status == "warn"
        logged = f'<serial type="pty"><log file="{log}"/></serial>'
        silent = found(logged)
        assert silent.status == "warn"
        assert "serial-getty@ttyS0" in silent.fix
        assert found(logged, "shutoff").status == "ok"
        log.write_text("login:")
        assert found(logged).status == "ok"

    def test_each_console_is_looked_at(self, tmp_path):
        log, empty = tmp_path / "log", tmp_path / "empty"
        log.write_text("login:")
        empty.touch()
        xml = f"""<domain><devices>
            <serial type="pty"><log file="{log}"/><alias name="serial0"/></serial>
            <serial type="pty"><log file="{empty}"/><alias name="serial1"/></serial>
            <serial type="null"><alias name="serial2"/></serial>
            <console type="pty"><target type="serial"/><alias name="serial0"/></console>
            <console type="pty"><log file="{empty}"/><alias name="console1"/></console>
            </devices></domain>"""
        guest = control.GuestInfo("web", "", "running", consoles(xml))
        found = list(libvirt.console(guest, xml))
        assert [(one.message.split()[0], one.status) for one in found] == [
            ("serial0", "ok"),
            ("console1", "warn"),
            ("serial1", "warn"),
        ]
        assert "serial-getty@hvc0" in found[1].fix
        assert "serial-getty@ttyS1" in found[2].fix


class Pages(BaseHTTPRequestHandler):
    """Another program, at our port."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


class TestServices:
    @pytest.fixture
    def case(self, run_dir):
        return fakes.config(run_dir)

    def test_the_supervisor(self, case, monkeypatch):
        def found(runs=False, starts=False):
            return list(services.supervisor(case, runs, starts))

        assert verdicts(found()) == [("supervisor", "fail")]
        assert "serial-console run" in found()[0].fix
        # Connecting to systemd's socket would start it: the doctor changes nothing.
        assert found(starts=True)[0].message == "the supervisor does not run"
        answer = {"ok": True, "version": __version__, "libvirt": "ok", "sessions": 2}
        monkeypatch.setattr(channel, "call", lambda *_: answer)
        assert verdicts(found(True, True)) == [("supervisor", "ok")]
        answer["libvirt"] = "unavailable"
        assert verdicts(found()) == [("supervisor", "fail")]
        answer |= {"libvirt": "ok", "version": "0.0.9"}
        assert verdicts(found()) == [("versions", "warn"), ("supervisor", "ok")]
        answer |= {"version": __version__, "gateway_version": "0.0.8", "relay_versions": ["0.0.7"]}
        gateway, relays, _ = found()
        assert gateway[:2] == ("versions", "warn")
        assert "gateway 0.0.8 runs" in gateway.message
        assert relays[:2] == ("versions", "ok")
        answer |= {"gateway_version": __version__, "relay_versions": [__version__]}
        assert verdicts(found()) == [("supervisor", "ok")]

    def test_a_supervisor_that_this_user_may_not_ask(self, case, monkeypatch):
        def call(*_):
            raise SupervisorUnavailable("no") from PermissionError(13, "Permission denied")

        monkeypatch.setattr(channel, "call", call)
        found = only(services.supervisor(case, True, False))
        assert found.status == "fail"
        assert "usermod -aG serial-console-admin" in found.fix

    def test_a_supervisor_that_hangs(self, case, monkeypatch):
        monkeypatch.setattr(services, "ANSWER", 0.1)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(case.paths.admin)
            sock.listen()
            try:
                found = only(services.supervisor(case, True, False))
            finally:
                os.unlink(case.paths.admin)
        assert found.status == "fail"
        assert "restart it; sessions go on" in found.fix

    def test_ports(self):
        with HTTPServer(("127.0.0.1", 0), Pages) as server:
            listen = f"127.0.0.1:{server.server_port}"
            case = Config(gateway=Gateway(listen=listen), api=Api(listen=listen))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                for name, look in (("gateway", services.gateway), ("api", services.api)):
                    found = only(look(case, False, False))
                    assert (found.check, found.status) == (f"{name} port", "fail")
                    own = psutil.Process().name()
                    assert f"taken by {own} (pid {os.getpid()})" in found.message
            finally:
                server.shutdown()
                thread.join()
        found = only(services.gateway(case, False, False))
        assert (found.status, found.message[:14]) == ("fail", "nobody listens")
        assert only(services.gateway(case, False, True)).message == "the gateway does not run"

    def test_versions(self):
        old = services.Running("gateway", 1, NOW - DAY)
        new = services.Running("api", 2, NOW)
        assert verdicts(services.versions([new], NOW - 60)) == [("versions", "ok")]
        found = only(services.versions([old, new], NOW - 60))
        assert (found.status, found.fix) == ("warn", "restart the gateway")
        assert only(services.versions([], NOW)).status == "ok"

    def test_which_processes_are_ours(self, tmp_path):
        path = str(tmp_path / "config.toml")
        other = str(tmp_path / "other.toml")

        def arguments(*ours):
            # A stand-in that sleeps: only its arguments count.
            code = "import sys; print(flush=True); sys.stdin.read()"
            return [sys.executable, "-c", code, "/usr/bin/serial-console", *ours]

        def start(*ours):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            child = subprocess.Popen(arguments(*ours), **pipes)
            child.stdout.readline()
            return child

        started = [
            start("--config", path, "gateway"),
            start(f"--config={path}", "api"),
            start("--config", other, "gateway"),
            start("--config", path, "guests"),
        ]
        try:
            found = services.running(path)
        finally:
            for child in started:
                child.communicate()
        assert {(one.service, one.pid) for one in found} == {
            ("gateway", started[0].pid),
            ("api", started[1].pid),
        }


def test_what_is_right_in_a_broken_configuration_counts(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[gateway]\nlisten = 'nonsense'\n[libvirt]\nuri = 'test:///x'\nurl = 1\n")
    found = config.salvage(str(path))
    assert found.libvirt.uri == "test:///x"
    assert found.gateway.listen == Gateway().listen
    path.write_text("[[[")
    assert config.salvage(str(path)).gateway.listen == Gateway().listen
