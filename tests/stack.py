"""Our services as real processes, and clients for them; fixtures: conftest.py."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from typing import Any, Self

import psutil

from serial_console.demo.libvirtd import Guest

from . import documents, rig
from .clients import Raw, Terminal, Viewer
from .rig import free_port

BIN = os.path.dirname(sys.executable)
READY = 30.0
"""Seconds that a service may take to be ready on a busy machine."""
STOP = 10.0
"""The same to end."""
KEY_NAME = "tests"

Json = dict[str, Any]


class Service:
    """One of our programs, running."""

    def __init__(
        self, name: str, command: Sequence[str], log: str, pass_fds: Sequence[int] = ()
    ) -> None:
        self.name = name
        self.log = log
        self.ended_by_test = False
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                start_new_session=True,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def wait_ready(self) -> None:
        """Wait for the line ``ready``, which must be all that it prints."""
        output = self.process.stdout
        assert output is not None
        deadline = time.monotonic() + READY
        said = b""
        while not said.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            piece = select.select([output], [], [], left)[0] and os.read(output.fileno(), 100)
            if not piece:
                break
            said += piece
        assert said == b"ready\n", f"{self.name} said {said!r}: {self.logged()[-2000:]}"

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait, return the exit status."""
        self.ended_by_test = True
        self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = STOP) -> int:
        """Wait for its end; return the exit status."""
        self.ended_by_test = True
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.stdout is not None and self.process.poll() is not None:
                self.process.stdout.close()

    def logged(self) -> str:
        """Return what it wrote to stderr."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def fds(self) -> int:
        """Return how many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Stack:
    """Services on one configuration, with their own directories and ports.

    Args:
        uri: libvirt's.
        run_dir: a short directory, for sockets.
        directory: for the configuration, API keys and logs.
        sections: what the configuration says beside that, by section.
    """

    def __init__(self, uri: str, run_dir: str, directory: str, **sections: Json) -> None:
        self.run_dir = run_dir
        self.directory = directory
        self.consoles = os.path.join(run_dir, "console")
        self.control = os.path.join(run_dir, "control")
        self.redeem_path = os.path.join(self.control, "redeem.sock")
        self.admin_path = os.path.join(self.control, "admin.sock")
        self.gateway_port, self.api_port, self.stock_port = free_port(), free_port(), free_port()
        self.services: dict[str, Service] = {}
        self.config = os.path.join(directory, "config.toml")
        self._key = ""
        self._logs: list[str] = []
        settings: dict[str, Json] = {
            "libvirt": {"uri": uri},
            "paths": {
                "consoles": self.consoles,
                "control": self.control,
                "api": os.path.join(run_dir, "api"),
            },
            "gateway": {"listen": f"127.0.0.1:{self.gateway_port}"},
            "api": {
                "listen": f"127.0.0.1:{self.api_port}",
                "keys": os.path.join(directory, "keys", "api-keys"),
            },
            "log": {"level": "debug"},
        }
        for name, keys in sections.items():
            settings[name] = settings.get(name, {}) | keys
        lines = []
        for name, keys in settings.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        with open(self.config, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    # ---- services

    def start(self, *names: str) -> Self:
        """Start supervisor, gateway, api, run or stock, and wait until they serve."""
        started = [self._launch(name) for name in names]
        for service in started:
            if service.name == "stock":
                assert rig.eventually(lambda: listens(self.stock_port), READY), service.logged()
            else:
                service.wait_ready()
        return self

    def _launch(self, name: str) -> Service:
        command = [*self.program, name]
        if name == "stock":
            typed = documents.block("docs/websockify.md", "stock")
            typed = typed.replace("\\\n", "").replace("6083", str(self.stock_port))
            typed = typed.replace("/run/serial-console/redeem.sock", self.redeem_path)
            program, *command = shlex.split(typed)
            command.insert(0, os.path.join(BIN, program))
        log = os.path.join(self.directory, f"{name}.log")
        self.services[name] = Service(name, command, log)
        return self.services[name]

    def pid(self, name: str) -> int:
        """The process of a service."""
        return self.services[name].pid

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """End a service with a signal; return its exit status."""
        return self.services[name].end(number)

    def close(self) -> None:
        """End everything; a service of ours that was not ended by the test must end with 0."""
        statuses = {}
        for name in ("run", "api", "supervisor", "gateway", "stock"):
            service = self.services.get(name)
            if service is None:
                continue
            if service.process.poll() is None:
                ours = not service.ended_by_test and name != "stock"
                try:
                    status = service.end()
                except subprocess.TimeoutExpired:
                    service.process.kill()
                    status = service.wait()
                if ours:
                    statuses[name] = status
            else:
                if not service.ended_by_test:
                    statuses[name] = service.process.returncode or -999
                service.wait()
        print(self.logs())
        wrong = {name: status for name, status in statuses.items() if status != 0}
        assert not wrong, f"ended wrongly (-999: by itself): {wrong}"

    def logs(self) -> str:
        """Return what all services wrote to stderr."""
        return "".join(f"--- {one.name}\n{one.logged()}" for one in self.services.values())

    # ---- the command line

    @property
    def program(self) -> list[str]:
        """The command with this configuration."""
        return [os.path.join(BIN, "serial-console"), "--config", self.config]

    def cli(self, *arguments: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        return subprocess.run(
            [*self.program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd="/",
        )

    # ---- admin.sock and redeem.sock, as docs/protocol.md has them

    def ask(self, op: str, **fields: Any) -> Json:
        """Ask the supervisor something; return its answer, positive or not."""
        return request(self.admin_path, {"v": 1, "op": op, **fields})

    def redeem(self, token: str, **fields: Any) -> Json:
        """Redeem a token as this process."""
        return request(self.redeem_path, {"v": 1, "op": "redeem", "token": token, **fields})

    def issue(self, guest: str, **fields: Any) -> Json:
        """Return the answer with a new token."""
        answer = self.ask("issue", guest=guest, **fields)
        assert answer["ok"], answer
        return answer

    def token(self, guest: str, **fields: Any) -> str:
        """Return a new token."""
        return str(self.issue(guest, **fields)["token"])

    def sessions(self) -> list[Json]:
        """Return the open sessions."""
        answer = self.ask("sessions")
        assert answer["ok"], answer
        return list(answer["sessions"])

    def session_of(self, guest: Guest) -> Json:
        """Return the one session of a guest."""
        (found,) = (one for one in self.sessions() if one["uuid"] == guest.uuid)
        return found

    def wait_sessions(self, *states: str, seconds: float = 10.0) -> list[Json]:
        """Wait until there are sessions in exactly these states, of whatever order."""
        found: list[Json] = []

        def there() -> bool:
            found[:] = self.sessions()
            return sorted(one["state"] for one in found) == sorted(states)

        assert rig.eventually(there, seconds), f"{found} instead of {states}"
        return found

    def wait_free(self, seconds: float = 10.0) -> None:
        """Wait until there is no session and no relay's socket."""
        self.wait_sessions(seconds=seconds)
        assert rig.eventually(lambda: self.relay_sockets() == [], 2.0), self.relay_sockets()

    def relay_sockets(self) -> list[str]:
        """Return the names of the sockets of relays, in both directories."""
        found = []
        for directory in (self.consoles, os.path.join(self.control, "relays")):
            with contextlib.suppress(FileNotFoundError):
                found += os.listdir(directory)
        return found

    # ---- clients

    def url(self, token: str | None, via: str = "gateway") -> str:
        """Return the WebSocket URL with a token."""
        port = self.stock_port if via == "stock" else self.gateway_port
        return f"ws://127.0.0.1:{port}/websockify" + ("" if token is None else f"?token={token}")

    def connect(self, token: str | None, via: str = "gateway", **options: Any) -> Terminal:
        """Connect with a token."""
        return Terminal(self.url(token, via), **options)

    def open(self, guest: str, via: str = "gateway", **fields: Any) -> Terminal:
        """Get a token and connect."""
        return self.connect(self.token(guest, **fields), via)

    def view(self, guest: str, after: str = "", **fields: Any) -> Viewer:
        """Get a token and connect as a client that is shown events; ``after``: it comes back."""
        url = self.url(self.token(guest, **fields))
        return Viewer(f"{url}&after={after}" if after else url)

    def raw(self, guest: str, *, receive_buffer: int = 0, **fields: Any) -> Raw:
        """Get a token and connect through our gateway on a bare socket."""
        return Raw("127.0.0.1", self.gateway_port, self.token(guest, **fields), receive_buffer)

    # ---- REST

    @property
    def key(self) -> str:
        """An API key, made at the first use by the command."""
        if not self._key:
            done = self.cli("key", "add", KEY_NAME)
            assert done.returncode == 0, done.stderr
            self._key = done.stdout.strip()
        return self._key

    def rest(
        self, method: str, path: str, body: Json | None = None, key: str | None = None
    ) -> tuple[int, Json]:
        """Return status and JSON of a REST call; by default with a good key."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        payload = None
        if body is not None:
            payload = json.dumps(body)
            headers["Content-Type"] = "application/json"
        status, _, data = http(self.api_port, method, path, headers=headers, body=payload)
        return status, json.loads(data) if data else {}


def http(
    port: int, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request with exactly this path; return status, headers (lower case) and body."""
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, names, answer.read()


def request(path: str, message: Json, seconds: float = 20.0) -> Json:
    """Send one message to a unix socket; return the one line of its answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        sock.connect(path)
        sock.sendall(json.dumps(message).encode() + b"\n")
        answer: Json = json.loads(next(_lines(sock)))
        return answer


def _lines(sock: socket.socket) -> Iterator[bytes]:
    with sock.makefile("rb") as file:
        yield from file


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def descendants(pid: int) -> list[psutil.Process]:
    """Return a process's living descendants; those that only wait to be reaped have ended."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def alive(pid: int) -> bool:
    """Tell whether a process runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def pss(pid: int) -> int:
    """Return a process's share of the memory, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


def memory(session: Json) -> list[int]:
    """Return what a session's relay and its gateway process have allocated, in bytes."""
    return [anonymous(session["relay_pid"]), anonymous(session["gateway_pid"])]


def anonymous(pid: int) -> int:
    """Return the bytes of a process that are no file's: its own, or shared with its forks.

    Unlike its own (USS) and its share (PSS) they do not grow when it first writes to a page that
    it has from its parent, or when another that shares one ends.
    """
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))
