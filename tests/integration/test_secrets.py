"""Tokens and API keys are nowhere but in the answer that gives them: a whole run, then grep."""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import re
import secrets
import signal
import threading
from urllib.parse import quote

from serial_console.demo import host

from .. import rig
from ..clients import Pty
from ..journaled import Journaled
from ..raw_http import UPGRADE, sent_raw
from ..stack import KEY_NAME, http, request

GATEWAY = [
    "GET /websockify?token={s} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "GET /websockify?x=1&%74oken={s} HTTP/1.1\r\n" + UPGRADE + "\r\n",
    "GET /websockify?token={s} HTTP/1.1\r\n" + UPGRADE + "Origin: http://evil/?{s}\r\n\r\n",
    "GET /websockify HTTP/1.1\r\n" + UPGRADE + "Sec-WebSocket-Protocol: x, token.{s}\r\n\r\n",
    "GET /websockify HTTP/1.1\r\n" + UPGRADE + "Sec-WebSocket-Protocol: token.{s}\r\n\r\n",
    "GET /websockify HTTP/1.1\r\n" + UPGRADE + "Authorization: Bearer {s}\r\nX-{s}: {s}\r\n\r\n",
    "GET /websockify?token={s} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "GET /serial.html/token={s} HTTP/1.1\r\nHost: {s}.example\r\n\r\n",
    "GET //{s}/.. HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "GET /websockify?token={s} HTTP/9.9\r\n\r\n",
    "{s} /websockify?token={s} HTTP/1.1\r\n\r\n",
    "token={s}\r\n\r\n",
    "GET / HTTP/1.1\r\ntoken={s}\r\n\r\n",
    "GET / HTTP/1.1\r\n" + "Cookie: token={s}\r\n" * 200 + "\r\n",
    "GET /" + "{s}" * 2000 + " HTTP/1.1\r\n\r\n",
]
API = [
    "GET /{s} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /v1/guests?key={s} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /v1/tokens/{s} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /v1/guests HTTP/1.1\r\nHost: x\r\nAuthorization {s}\r\n\r\n",
    "GET /v1/guests HTTP/1.1\r\nHost: x\r\nAuthorization: {s}\r\nConnection: close\r\n\r\n",
    "{s} /v1/guests?{s} HTTP/1.1\r\nHost: {s}\r\nConnection: close\r\n\r\n",
    "GET http://{s}/v1/guests HTTP/9.1\r\nHost: x\r\nCookie: {s}\r\n\r\n",
    "{s}\r\n\r\n",
    "GET /v1/guests HTTP/1.1\r\nHost: x\r\n" + "X: {s}\r\n" * 3000 + "\r\n",
]
MESSAGES = [
    {"v": 1, "op": "redeem", "token": "{s}", "client": 5},
    {"v": 1, "op": "redeem", "token": ["{s}"]},
    {"v": 1, "op": "{s}", "token": "{s}"},
    {"v": 2, "op": "redeem", "token": "{s}"},
    {"v": "{s}", "op": "redeem"},
    {"v": 1, "op": "redeem", "token": "{s}"},
    {"v": 1, "op": "revoke", "id": "{s}"},
    {"v": 1, "op": "session", "id": ["{s}"]},
]


class _Watch:
    """Our processes' command lines and environments, looked at again and again meanwhile."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._mark = f"{rig.TEST_MARK}={os.environ[rig.TEST_MARK]}".encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for directory in glob.glob("/proc/[0-9]*"):
                with contextlib.suppress(OSError):
                    with open(f"{directory}/environ", "rb") as file:
                        environ = file.read()
                    if self._mark in environ:
                        with open(f"{directory}/cmdline", "rb") as file:
                            self.seen.add(file.read() + b"\0" + environ)


LIKE_A_SECRET = re.compile(rb"(?<![\w-])[\w-]{43}(?![\w-])", re.ASCII)
"""What a token or a key looks like, for those that the test is not told of (attach)."""


def forms(secret: str) -> set[bytes]:
    """How a secret may be written: as it is, in part, and encoded."""
    raw = secret.encode()
    found = {raw, raw[:20], raw[-20:], raw.hex().encode(), raw.hex().upper().encode()}
    found |= {"".join(f"%{byte:02{case}}" for byte in raw).encode() for case in "xX"}
    for shift in range(3):  # wherever it may begin within what was encoded
        text = base64.b64encode(b"x" * shift + raw)[4:-4]
        found |= {text, text.replace(b"+", b"-").replace(b"/", b"_")}
    return found


class _Run:
    """One run of everything, and the secrets that were used in it."""

    def __init__(self, stack: Journaled, guest: str) -> None:
        self.stack = stack
        self.guest = guest
        self.secrets: dict[str, str] = {}
        self.answers: list[bytes] = []

    def note(self, secret: str, what: str) -> str:
        assert len(secret) > 25
        self.secrets[secret] = what
        return secret

    def wrong(self, what: str) -> str:
        return self.note(secrets.token_urlsafe(32), what)

    def rest(self, method: str, path: str, body: bytes = b"", **headers: str) -> dict[str, object]:
        """Ask; the answer must hold no secret, but for one that issues a token."""
        sent = {"Authorization": f"Bearer {self.stack.key}"} | headers
        status, names, got = http(self.stack.api_port, method, path, sent, body or None)
        if status != 201:
            self.answers += [got, repr(names).encode()]
            return {}
        return json.loads(got)

    def issue(self, what: str, body: bytes = b"{}") -> str:
        answer = self.rest("POST", f"/v1/guests/{self.guest}/tokens", body)
        self.note(str(answer["token"]), what)
        self.ids = answer
        return str(answer["token"])

    def types(self, token: str, **options: object) -> None:
        with self.stack.connect(token, **options) as terminal:
            typed = self.wrong("what was typed")
            terminal.send(typed.encode())
            terminal.read_until(typed.encode())
        self.stack.wait_free()

    def fails(self, token: str, **options: object) -> None:
        with self.stack.connect(token, **options) as terminal:
            code, reason = terminal.ended()
            assert code >= 4000
            self.answers.append(reason.encode())

    def end(self) -> None:
        for name in ("gateway", "api", "supervisor"):
            assert self.stack.end(name) == 0

    def keys(self) -> None:
        good = self.note(self.stack.key, "a good key")
        self.rest("GET", "/v1/guests")
        for key in good, self.wrong("a wrong key"):
            plain = base64.b64encode(f"{KEY_NAME}:{key}".encode()).decode()
            for scheme in (
                f"Basic {plain}",
                f"bearer {key}x",
                f"Token {key}",
                key,
                f"Bearer  {key} x",
            ):
                self.rest("GET", "/v1/guests", Authorization=scheme)
            self.rest("GET", f"/v1/guests?key={key}&token={quote(key)}", Cookie=f"key={key}")
            self.rest("GET", f"/{key}")
            self.rest("DELETE", f"/v1/tokens/{key}")
            self.rest("DELETE", f"/v1/sessions/{key}", Authorization=f"Bearer {key}")
            path = f"/v1/guests/{self.guest}/tokens"
            for body in (
                f'{{"{key}": 1}}',
                f'{{"mode": "{key}"}}',
                f'{{"escape": "{key}"}}',
                f'{{"client_address": "{key}"}}',
                f'{{"ttl": "{key}"}}',
                f'{{"user": ["{key}"]',
                f'"{key}"',
                key,
            ):
                self.rest("POST", path, body.encode(), **{"Content-Type": "application/json"})
        revoked = self.note(self.stack.cli("key", "add", "gone").stdout.strip(), "a revoked key")
        self.rest("GET", "/v1/guests", Authorization=f"Bearer {revoked}")
        assert self.stack.cli("key", "revoke", "gone").returncode == 0
        self.rest("GET", "/v1/guests", Authorization=f"Bearer {revoked}")

    def tokens(self) -> None:
        used = self.issue("used in the URL")
        self.types(used)
        self.fails(used)
        self.types("", subprotocol_token=self.issue("used as subprotocol"))
        self.types("".join(f"%{byte:02X}" for byte in self.issue("percent-encoded").encode()))
        for what in "unknown, in the URL", "too long":
            self.fails(self.wrong(what) * (1 if what.startswith("u") else 50))
        self.fails("", subprotocol_token=self.wrong("unknown, as subprotocol"))
        self.fails(self.issue("another address", b'{"client_address": "192.0.2.1"}'))
        resumed = self.issue("resumed", b'{"resume": 30, "user": "ann"}')
        with self.stack.connect(resumed) as first:
            self.stack.wait_sessions("connected")
            self.fails(self.issue("in use"))
            self.stack.end("supervisor", signal.SIGKILL)
            self.stack.start("supervisor")
            first.vanish()
        (session,) = self.stack.wait_sessions("detached")
        with self.stack.connect(resumed) as second:
            self.stack.wait_sessions("connected")
            self.rest("DELETE", f"/v1/tokens/{session['token_id']}")
            assert second.ended()[0] == 4411
        self.stack.wait_free()
        unused = self.issue("revoked unused")
        self.rest("DELETE", f"/v1/tokens/{self.ids['id']}")
        self.fails(unused)
        asked = b'{"remote_console": {"protocol": "serial", "type": "serial"}}'
        headers = {"Authorization": f"Bearer {self.stack.key}"}
        path = f"/v1/guests/{self.guest}/remote-consoles"
        got = json.loads(http(self.stack.api_port, "POST", path, headers, asked)[2])
        self.note(got["remote_console"]["url"].partition("token=")[2], "in nova's shape")

    def command_line(self) -> None:
        for options in (), ("--url",):
            done = self.stack.cli("token", self.guest, *options)
            token = self.note(done.stdout.strip().rpartition("token=")[2], f"of token {options}")
            self.types(token)
            self.answers.append(done.stderr.encode())
        with Pty([*self.stack.program, "attach", self.guest]) as terminal:
            terminal.read_until(b"connected to")
            terminal.send(b"\x1d")
            assert terminal.wait() == 0
        self.stack.wait_free()
        for command in (
            ("sessions", "--json"),
            ("guests",),
            ("key", "list", "--json"),
            ("config", "show"),
        ):
            done = self.stack.cli(*command)
            self.answers += [done.stdout.encode(), done.stderr.encode()]

    def malformed(self) -> None:
        where = f"127.0.0.1:{self.stack.gateway_port}"
        for number, text in enumerate(GATEWAY):
            sent = [self.wrong(f"gateway request {number}"), self.stack.key]
            if "Upgrade" in text:
                sent.append(self.issue(f"gateway request {number}, real"))
            for secret in sent:
                got = sent_raw(self.stack.gateway_port, text.format(s=secret, host=where).encode())
                self.answers.append(got)
            self.stack.wait_free()
        for number, text in enumerate(API):
            for secret in self.wrong(f"api request {number}"), self.stack.key:
                self.answers.append(sent_raw(self.stack.api_port, text.format(s=secret).encode()))
        for number, message in enumerate(MESSAGES):
            for path in self.stack.redeem_path, self.stack.admin_path:
                secret = self.wrong(f"message {number}")
                filled = json.loads(json.dumps(message).replace("{s}", secret))
                answer = request(path, filled)
                assert not answer["ok"]
                self.answers.append(repr(answer).encode())


def test_no_secret_is_anywhere(libvirtd, tmp_path, echo_guest):
    audit = str(tmp_path / "audit.log")
    with host.short_directory("sc-run-") as run_dir:
        settings = {"level": "debug", "format": "text", "audit": audit}
        stack = Journaled(
            libvirtd.uri, run_dir, str(tmp_path), log=settings, api={"rate": 0}, tokens={"ttl": 120}
        )
        with stack, _Watch() as watch:
            stack.start("supervisor", "gateway", "api")
            run = _Run(stack, echo_guest.uuid)
            run.keys()
            run.tokens()
            run.end()
            with open(stack.config, encoding="utf-8") as file:
                settings_text = file.read()
            with open(stack.config, "w", encoding="utf-8") as file:
                file.write(settings_text.replace('"text"', '"json"'))
            stack.start("supervisor", "gateway", "api")
            run.command_line()
            run.malformed()
            run.end()
            run.answers += stack.entries
            assert any(b"SERIAL_CONSOLE_EVENT=token_redeemed" in one for one in stack.entries)
    places = {f"/proc {number}": blob for number, blob in enumerate(watch.seen)}
    places |= {f"answer {number}: {one[:99]!r}": one for number, one in enumerate(run.answers)}
    for path in glob.glob(f"{tmp_path}/**", recursive=True):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                places[path] = file.read()
    assert {f"{name}.log" for name in stack.services} <= {os.path.basename(one) for one in places}
    assert len(run.secrets) > 60
    everything = b"\0".join(places.values())
    leaks = [
        (what, where)
        for secret, what in run.secrets.items()
        for form_ in forms(secret)
        if form_ in everything
        for where, blob in places.items()
        if form_ in blob
    ]
    leaks += [("unknown", where) for where, blob in places.items() if LIKE_A_SECRET.search(blob)]
    assert any(b"attach" in blob for blob in watch.seen)
    assert any(b"serial-console\0--config" in blob and b"\0api\0" in blob for blob in watch.seen)
    assert not leaks, "\n".join(sorted({f"{what}: in {where}" for what, where in leaks}))
    assert b"Traceback" not in b"".join(places[f"{tmp_path}/{name}.log"] for name in stack.services)
    assert stack.cli("audit", "verify").returncode == 0
