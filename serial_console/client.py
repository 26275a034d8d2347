"""The API's client for host managers: tokens, guests and sessions, in Python without dependencies.

::

    from serial_console.client import Client

    client = Client("http://127.0.0.1:6084", key)  # or Client("/run/serial-console-api/api.sock")
    page = client.issue("web-1", user="anna").page_url  # opens the console once, within 30 s

    with client.console("web-1", user="anna") as url:  # a WebSocket URL
        ...  # at the end of the block the session is over

It needs the standard library alone, opens a connection for each call, and keeps nothing between
calls: threads may share a client. It obeys no proxy of the environment and follows no redirect, so
that the key goes to the one address that it was given for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlsplit

TIMEOUT = 20.0
"""Seconds that connecting may take, and the answer then: the API itself waits at most 15 s."""
TIMEOUT_MAX = 3600
"""Seconds; more is a mistake, as in milliseconds."""
ANSWER_MAX = 16 << 20
"""Bytes of an answer: a list of 10,000 guests has some 4 MB."""

_Answer = TypeVar("_Answer")


class ClientError(Exception):
    """What was asked for was not had; its text is one sentence, fit to show, without a secret."""


class NoAnswer(ClientError):
    """There is no answer, or none of this API: the address, the network, TLS, the service."""


class ApiError(ClientError):
    """The API refused, or failed, and says why.

    Attributes:
        code: stable, for programs: ``no_such_guest``, ``rate_limited`` ... (docs/integrating.md).
        status: the HTTP status.
        title: its name.
        detail: what was wrong, why and what to do; also the error's text.
        retry_after: seconds to wait before the same is asked again, with ``rate_limited``; else 0.
    """

    def __init__(
        self, code: str, status: int, title: str, detail: str, retry_after: int = 0
    ) -> None:
        super().__init__(code, status, title, detail, retry_after)
        self.code = code
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.detail


class Wishes(TypedDict, total=False):
    """What a token is to be good for; what is left out has the API's default.

    Attributes:
        user: who will use it: for listings, logs and the limit per user.
        mode: ``ro`` only watches. Default: what the key may.
        console: the console's alias, such as ``serial0``. Default: the guest's first.
        ttl: seconds within which it must be used.
        takeover: take the console from the client that has it.
        notices: whether notices are shown in the output.
        replay: how many bytes of recent output are shown first; False: none.
        escape: the key that ends the session, such as ``ctrl-q``; empty for none.
        client_address: the only IP address that may use it.
        resume: seconds that the session waits for its client after a lost connection.
    """

    user: str
    mode: Literal["rw", "ro"]
    console: str
    ttl: int
    takeover: bool
    notices: bool
    replay: int | bool
    escape: str
    client_address: str
    resume: int


@dataclasses.dataclass(frozen=True)
class Token:
    """A token. Whoever has its secret can use it: its repr has none of the three fields with it."""

    id: str
    """Names the token without being a secret."""
    token: str = dataclasses.field(repr=False)
    """The secret: opens one session, once."""
    guest: str
    uuid: str
    console: str
    """The console's alias."""
    mode: str
    """``rw``, or ``ro`` for a watcher."""
    user: str
    expires_at: datetime
    """In UTC."""
    websocket_url: str = dataclasses.field(repr=False)
    page_url: str = dataclasses.field(repr=False)
    """The page with the token in its fragment; open it in a browser."""


@dataclasses.dataclass(frozen=True)
class Console:
    """One serial or console device of a guest."""

    alias: str
    type: str
    """libvirt's type, such as ``pty``."""
    supported: bool
    """Whether it can be opened."""


@dataclasses.dataclass(frozen=True)
class Guest:
    """One guest; its first console is the default."""

    name: str
    uuid: str
    state: str
    consoles: tuple[Console, ...]
    sessions: tuple[str, ...]
    """Ids of the sessions that are open."""


@dataclasses.dataclass(frozen=True)
class Session:
    """One client attached to one console."""

    id: str
    guest: str
    uuid: str
    console: str
    mode: str
    user: str
    client: str
    """Address and port of the client as the gateway sees it."""
    state: str
    opened_at: datetime
    """In UTC."""
    idle: float
    """Seconds since the last input."""
    bytes_in: int
    """Bytes from the client to the guest."""
    bytes_out: int
    """Bytes from the guest to the client."""
    skipped: int
    """Bytes that the client was too slow to get."""
    relay_pid: int
    gateway_pid: int
    token_id: str
    held: int = 0
    """Bytes of input that the guest does not take now."""
    memory: int = 0
    """Bytes of memory of the session's relay, which its watchers share; 0: not known."""
    cpu: float = 0.0
    """Seconds of CPU that the relay has used."""


@dataclasses.dataclass(frozen=True)
class Health:
    """Whether consoles can be had."""

    status: str
    """``ok``, or ``unavailable`` where a part is."""
    version: str
    """The supervisor's; empty without one."""
    supervisor: str = "unknown"
    """``ok`` or ``unavailable``."""
    libvirt: str = "unknown"
    """``ok`` or ``unavailable``; ``unknown`` without a supervisor."""
    sessions: int = 0


@dataclasses.dataclass(frozen=True)
class _Guests:
    guests: tuple[Guest, ...]


@dataclasses.dataclass(frozen=True)
class _Sessions:
    sessions: tuple[Session, ...]


class Client:
    """Asks one API, with one key.

    Every call raises ApiError where the API refuses, NoAnswer where there is no answer of it, and
    ValueError where what was given cannot be sent.

    Args:
        where: the API's ``http://`` or ``https://`` address, or the path of its api.sock.
        key: an API key; api.sock needs none for a permitted user (config ``api.peer_uids``).
        ca_file: the PEM file of the only authorities to trust for ``https://``, instead of the
            system's.
        timeout: seconds that connecting may take, and the answer then.

    Raises:
        ValueError: an argument is of no use, and why.
        OSError: ca_file cannot be read.
    """

    def __init__(
        self, where: str, key: str = "", *, ca_file: str = "", timeout: float = TIMEOUT
    ) -> None:
        self._where = where
        self._key = _key(key)
        self._timeout = timeout
        self._tls: ssl.SSLContext | None = None
        self._host, self._port, self._base = "localhost", 0, ""
        self._socket = where if where.startswith("/") else ""
        if not 0 < timeout <= TIMEOUT_MAX:
            raise ValueError(
                f"timeout must be more than 0 and at most {TIMEOUT_MAX} seconds; the default is 20"
            )
        if not self._socket:
            scheme, self._host, self._port, self._base = _address(where)
            self._tls = _trusting(ca_file) if scheme == "https" else None
        if ca_file and self._tls is None:
            raise ValueError("ca_file is for an https:// address; leave it out")

    def __repr__(self) -> str:
        return f"Client({self._where!r})"

    def issue(self, guest: str, **wishes: Unpack[Wishes]) -> Token:
        """Issue a token for a guest, by its name or UUID; see Wishes."""
        return self._ask(Token, "POST", f"/v1/guests/{_segment(guest, 'guest')}/tokens", wishes)

    @contextlib.contextmanager
    def console(self, guest: str, **wishes: Unpack[Wishes]) -> Iterator[str]:
        """Give a WebSocket URL that opens a guest's console once; see Wishes.

        At the end of the block the token is revoked, and the session that it opened ended.
        """
        token = self.issue(guest, **wishes)
        try:
            yield token.websocket_url
        except BaseException as error:
            try:
                self._end(token)
            except ClientError as second:
                error.add_note(f"The token could not be revoked either: {second}")
            raise
        self._end(token)

    def _end(self, token: Token) -> None:
        try:
            self.revoke(token.id)
        except ApiError as error:
            if error.code != "no_such_token":  # used, and its session over; or it has expired
                raise

    def guests(self) -> list[Guest]:
        """List the guests that the key covers, sorted by name."""
        return [*self._ask(_Guests, "GET", "/v1/guests").guests]

    def guest(self, guest: str) -> Guest:
        """Describe a guest, by its name or UUID."""
        return self._ask(Guest, "GET", f"/v1/guests/{_segment(guest, 'guest')}")

    def sessions(self) -> list[Session]:
        """List the open sessions of the guests that the key covers."""
        return [*self._ask(_Sessions, "GET", "/v1/sessions").sessions]

    def session(self, session: str) -> Session:
        """Describe an open session, by its id."""
        return self._ask(Session, "GET", f"/v1/sessions/{_segment(session, 'session')}")

    def close(self, session: str) -> None:
        """Close a session, by its id."""
        self._request("DELETE", f"/v1/sessions/{_segment(session, 'session')}")

    def revoke(self, token: str) -> None:
        """Revoke a token, by its id, and close the session that it opened."""
        self._request("DELETE", f"/v1/tokens/{_segment(token, 'token')}")

    def health(self) -> Health:
        """Tell whether consoles can be had; this needs no key."""
        return self._ask(Health, "GET", "/healthz/ready", also=503)

    def _ask(
        self,
        kind: type[_Answer],
        method: str,
        path: str,
        body: Wishes | None = None,
        also: int = 200,
    ) -> _Answer:
        answer = self._request(method, path, body, also)
        problem = ""
        try:
            made: _Answer = _made(json.loads(answer), kind)
            return made
        except (ValueError, RecursionError) as error:
            problem = str(error) if isinstance(error, _Misfit) else "it is not JSON"
        raise NoAnswer(
            f"the answer of {self._where} is not understood: {problem}; "
            "is this the API, and of another version?"
        )

    def _request(
        self, method: str, path: str, body: Wishes | None = None, also: int = 200
    ) -> bytes:
        """Return the body of a good answer; one of the HTTP status ``also`` is good too."""
        data = None if body is None else json.dumps(body, allow_nan=False)
        problem = ""
        try:
            with contextlib.closing(self._connection()) as connection:
                connection.request(method, self._base + path, data, self._headers(data))
                with connection.getresponse() as answer:
                    content = answer.read(ANSWER_MAX + 1)
        except TimeoutError:
            problem = f"{self._where} did not answer within {self._timeout:g} s; try again later"
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message.rstrip(".")
            problem = f"the certificate of {self._where} is not trusted: {why}; "
            problem += "give the file of its authority as ca_file"
        except (OSError, HTTPException) as error:
            problem = (
                f"cannot reach the API at {self._where}: {_reason(error)}; "
                "does 'serial-console api' run there?"
            )
        if problem:  # raised here: the frames above hold the key, and would hang on the error
            raise NoAnswer(problem)
        if len(content) > ANSWER_MAX:
            raise NoAnswer(f"{self._where} answered more than {ANSWER_MAX} bytes; is this the API?")
        if 200 <= answer.status < 300 or answer.status == also:
            return content
        raise self._refusal(answer, content)

    def _refusal(self, answer: HTTPResponse, content: bytes) -> ClientError:
        try:
            problem: _Problem = _made(json.loads(content), _Problem)
        except (ValueError, RecursionError):
            hint = "redirects are not followed; give the API's own address"
            if not 300 <= answer.status < 400:
                hint = "is this the API, or a proxy before it?"
            return NoAnswer(
                f"{self._where} answered with HTTP status {answer.status}, and not as the API; "
                + hint
            )
        wait = answer.getheader("Retry-After", "")
        return ApiError(
            problem.code,
            answer.status,
            problem.title,
            problem.detail,
            int(wait) if re.fullmatch(r"[0-9]{1,9}", wait) else 0,
        )

    def _connection(self) -> HTTPConnection:
        if self._socket:
            return _Local(self._socket, self._timeout)
        if self._tls is not None:
            secure = HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._tls
            )
            secure.response_class = _Timed
            return secure
        plain = HTTPConnection(self._host, self._port, timeout=self._timeout)
        plain.response_class = _Timed
        return plain

    def _headers(self, data: str | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers


@dataclasses.dataclass(frozen=True)
class _Problem:
    """RFC 9457's document, as far as it is of use here."""

    code: str
    title: str
    detail: str


class _Timed(HTTPResponse):
    """An answer that must be there, whole, before the socket's time-out has passed once."""

    def __init__(self, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp = io.BufferedReader(_UntilThen(sock, self.fp))


class _UntilThen(io.RawIOBase):
    """Reads from a socket, with what is left of its time-out each time."""

    def __init__(self, sock: socket.socket, file: io.BufferedReader) -> None:
        self._sock = sock
        self._file = file
        self._deadline = time.monotonic() + (sock.gettimeout() or TIMEOUT)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._file.raw.readinto(buffer)

    def close(self) -> None:
        super().close()
        self._file.close()


class _Local(HTTPConnection):
    """A connection to a unix socket."""

    response_class = _Timed

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


_hints = functools.cache(get_type_hints)


class _Misfit(ValueError):
    """An answer is not of the form that it should have."""


def _made(value: Any, kind: Any, name: str = "it") -> Any:
    """Make what an answer should be of its JSON, leaving out fields that this version has no use
    for, and those with a default that an older API does not have. Raises _Misfit."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        hints = _hints(kind)
        has_default = {
            one.name for one in dataclasses.fields(kind) if one.default is not dataclasses.MISSING
        }
        fields = [one for one in hints if one in value or one not in has_default]
        return kind(**{one: _made(value.get(one), hints[one], one) for one in fields})
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_made(one, get_args(kind)[0], name) for one in value)
    if kind is datetime and isinstance(value, str):
        with contextlib.suppress(ValueError):
            time_ = datetime.fromisoformat(value)
            if time_.tzinfo is not None:
                return time_
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) is kind:
        return value
    raise _Misfit(f"{name} is missing, or is not what it should be")


def _reason(error: OSError | HTTPException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return type(error).__name__  # its text is what the other end sent


def _key(text: str) -> str:
    key = text.strip()  # of a file's last line
    if not re.fullmatch(r"[!-~]*", key):
        raise ValueError(
            "the API key has characters that no key has; give what 'serial-console key add' printed"
        )
    return key


def _address(where: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and path of an address. Raises ValueError, without repeating it."""
    try:
        parts = urlsplit(where)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        port, host = 0, ""
    if not port or not host or not re.fullmatch(r"[!-~]+", where):
        raise ValueError(
            "the API's address must be like http://127.0.0.1:6084, https://host.example "
            "or /run/serial-console-api/api.sock; correct it"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("the API's address has no user, query or fragment; the key is an argument")
    return parts.scheme, host, port, parts.path.rstrip("/")


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError:
        raise ValueError(f"ca_file {ca_file} has no certificate in PEM form; correct it") from None
    except OSError as error:  # of Python's ssl it names no file
        raise OSError(error.errno, error.strerror, ca_file) from None


def _segment(name: str, what: str) -> str:
    """Percent-encode a name, ``/`` included. Raises ValueError."""
    if not name:
        raise ValueError(f"the {what}'s name is empty; give one")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"the {what}'s name cannot be written in UTF-8; correct it") from None
