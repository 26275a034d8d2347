"""API keys: a file with one JSON object a line, which holds only their hashes.

::

    {"name": "kimchi", "guests": ["web-*"], "mode": "rw",
     "sha256": "9f86...", "created": "2025-01-31T12:00:00.000Z"}
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

from .errors import BadRequest, ConfigError, SetupError, os_reason
from .names import shown
from .times import rfc3339

KEY_BYTES = 32
"""Random bytes of a key: 256 bits."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What someone may do.

    Attributes:
        name: who.
        guests: globs of the names of the guests that it covers.
        mode: ``ro`` may only watch.
    """

    name: str
    guests: tuple[str, ...] = ("*",)
    mode: Literal["rw", "ro"] = "rw"

    @property
    def unlimited(self) -> bool:
        """Whether it covers every guest there is or may be."""
        return "*" in self.guests

    @property
    def login(self) -> str:
        """Who asks, where that is no key."""
        return self.name

    @property
    def key(self) -> str:
        """The key that asks, or ""."""
        return ""

    def covers(self, guest: str) -> bool:
        """Whether it is good for the guest of this name (never a UUID)."""
        return any(fnmatchcase(guest, glob) for glob in self.guests)


class Key(Grant, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One key, as the file has it: ``sha256`` of the secret in hex, ``created`` in RFC 3339."""

    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    created: str

    @property
    def login(self) -> str:
        """Nobody: a key asks."""
        return ""

    @property
    def key(self) -> str:
        """The key that asks."""
        return self.name


def add(path: str, name: str, guests: Sequence[str] = ("*",), mode: str = "rw") -> str:
    """Make a key, put its hash into the file and return the secret, which nobody keeps.

    Raises:
        BadRequest: the name is taken or no good name, or a glob is empty.
        ConfigError: the file is broken.
        SetupError: the file cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", name):
        raise BadRequest(
            "a key's name has 1 to 64 letters, digits or _.@- and begins with a letter or digit; "
            "choose such a name"
        )
    if not guests or not all(guests):
        raise BadRequest('an empty glob covers no guest; write one such as "web-*"')
    secret = secrets.token_urlsafe(KEY_BYTES)
    with _locked(path):
        keys = load(path)
        if any(key.name == name for key in keys):
            raise BadRequest(
                f"there is a key named {name} already; choose another name or revoke that one"
            )
        created = Key(
            name=name,
            sha256=_hash(secret),
            created=rfc3339(time.time()),
            guests=tuple(guests),
            mode="ro" if mode == "ro" else "rw",
        )
        _store(path, [*keys, created])
    return secret


def revoke(path: str, name: str) -> None:
    """Take a key out of the file; a running API refuses it from then on.

    Raises:
        BadRequest: there is no such key.
        ConfigError, SetupError: as add().
    """
    with _locked(path):
        keys = load(path)
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise BadRequest(
                "there is no key of that name; 'serial-console key list' shows the names"
            )
        _store(path, left)


def load(path: str) -> list[Key]:
    """Read all keys; a file that is not there has none.

    Raises:
        ConfigError: it cannot be read, others may read or write it, or a line is not a key.
    """
    return _read(path)[0]


class Ring:
    """The keys as a running API sees them: read again whenever the file changes.

    Args:
        path: the file (config ``api.keys``).
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: object = ()
        self._keys: list[Key] = []

    def find(self, secret: str) -> Key | None:
        """Return the key of this secret, or None. Raises ConfigError as load() does."""
        wanted = _hash(secret)
        found = None
        for key in self._current():  # all of them, so that time tells nothing of where it stands
            if hmac.compare_digest(key.sha256, wanted):
                found = key
        return found

    def holds(self, key: Key) -> bool:
        """Whether a key that was found is still good for the same. Raises ConfigError as load()."""
        return key in self._current()

    def _current(self) -> list[Key]:
        try:
            now = _identity(os.stat(self._path))
        except OSError:
            now = None
        if now is None or now != self._seen:
            self._keys, self._seen = _read(self._path)
        return self._keys


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _identity(status: os.stat_result) -> object:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,  # a chmod counts too
    )


def _nonblocking(path: str, flags: int) -> int:
    # Opening a FIFO by mistake must not hang the API.
    return os.open(path, flags | os.O_NONBLOCK)


def _read(path: str) -> tuple[list[Key], object]:
    """Return the keys and which version of the file they are from."""
    try:
        with open(path, "rb", opener=_nonblocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"the API keys {path} are not a file; set api.keys to a file")
            if status.st_mode & 0o027:
                raise ConfigError(
                    f"the API keys {path} are open to others "
                    f"(mode {stat.S_IMODE(status.st_mode):04o}); run: chmod g-w,o= {path}"
                )
            lines = file.read().splitlines()
    except FileNotFoundError:
        return [], None
    except OSError as error:
        raise ConfigError(
            f"cannot read the API keys {path}: {os_reason(error)}; "
            "make it readable for the user that the API runs as, and for nobody else"
        ) from error
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            keys.append(msgspec.json.decode(line, type=Key))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # Only where and what, never the line: someone may have pasted a secret there.
            raise ConfigError(
                f"{path}, line {number}: not a key ({shown(str(error))}); remove the line, "
                "then make a new key with 'serial-console key add'"
            ) from None
    return keys, _identity(status)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Keep other commands from changing the keys meanwhile.

    The lock is on the directory: the file itself is replaced, and with it a lock on it.
    """
    directory = os.path.dirname(os.path.realpath(path))
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _store(path: str, keys: Sequence[Key]) -> None:
    """Replace the file in one step, keeping the owner and mode that an operator gave it."""
    target = os.path.realpath(path)
    draft = f"{target}.{os.getpid()}.new"
    data = b"".join(msgspec.json.encode(key) + b"\n" for key in keys)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                with contextlib.suppress(FileNotFoundError):
                    old = os.stat(target)
                    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(fd, old.st_uid, old.st_gid)
                    os.fchmod(fd, stat.S_IMODE(old.st_mode))
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.replace(draft, target)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> SetupError:
    return SetupError(
        f"cannot write the API keys {path}: {os_reason(error)}; "
        "run this as the file's owner, or set api.keys to a place that you may write"
    )
