"""Directories, sockets and key files: there, listened at, closed to whom they must be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from .. import keys
from ..config import Config, Paths
from ..errors import ConfigError, os_reason
from ..listener import flaw
from ..names import SUN_PATH_MAX
from . import rights
from .finding import Finding, refused

_ROOT = "run doctor as root to look at it"
_START = "start the services: systemctl start serial-console.target, or serial-console run"
_NAME = len("/01234567-89ab-cdef-0123-456789abcdef.sock")


def directories(paths: Paths, user: str = "") -> Iterator[Finding]:
    """Look at the directories that the sockets are in.

    Args:
        paths: where they are.
        user: the supervisor's, "" where it is not known: who has to be able to use them.
    """
    for path in (paths.consoles, paths.control, paths.api):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            yield Finding("directories", "warn", f"{path} is not there; a start makes it", _START)
            continue
        except PermissionError:
            yield Finding("directories", "warn", f"cannot look at {path} as this user", _ROOT)
            continue
        if not stat.S_ISDIR(mode):
            fix = "remove it, or choose another one under [paths]"
            yield Finding("directories", "fail", f"{path} is not a directory", fix)
        elif mode & stat.S_IWOTH:
            message = f"{path} can be written by everybody (mode {stat.S_IMODE(mode):04o})"
            yield Finding("directories", "fail", message, f"chmod o-w {path}")
        elif user and path != paths.api and (wrong := _flaw(user, path)):
            message, _, fix = wrong.partition("; ")
            yield Finding("directories", "fail", message, fix)
        elif path == paths.consoles and len(os.fsencode(path)) + _NAME > SUN_PATH_MAX:
            message = f"{path} is too long for the names of sockets in it"
            yield Finding("directories", "fail", message, "choose a shorter paths.consoles")
        else:
            yield Finding("directories", "ok", f"{path} (mode {stat.S_IMODE(mode):04o})")


def _flaw(user: str, path: str) -> str:
    with rights.of(user):
        return flaw(path)


def sockets(wanted: dict[str, bool], table: str = "/proc/net/unix") -> Iterator[Finding]:
    """Look at listening sockets without connecting: that could start a service.

    Args:
        wanted: paths; whether it is a failure when nobody listens there.
        table: the kernel's list of unix sockets.
    """
    listening = _listening(table)
    for path, must in wanted.items():
        bad = Finding("sockets", "fail" if must else "warn", "", _START)
        try:
            mode = os.lstat(path).st_mode
        except PermissionError:
            yield Finding("sockets", "warn", f"cannot look at {path} as this user", _ROOT)
            continue
        except OSError as error:
            yield bad._replace(message=f"{path}: {os_reason(error)}")
            continue
        if not stat.S_ISSOCK(mode):
            fix = "see what it is, remove it, start the services again"
            yield Finding("sockets", "fail", f"{path} is not a socket", fix)
        elif mode & 0o007:
            message = f"{path} is open to everybody (mode {stat.S_IMODE(mode):04o})"
            yield Finding("sockets", "fail", message, f"chmod o= {path}")
        elif path not in listening:
            yield bad._replace(message=f"nobody listens at {path}, which somebody left behind")
        else:
            yield Finding("sockets", "ok", f"{path} (mode {stat.S_IMODE(mode):04o})")


def _listening(table: str) -> set[str]:
    found = set()
    with open(table, encoding="utf-8", errors="surrogateescape") as lines:
        next(lines)  # the titles
        for line in lines:
            fields = line.rstrip("\n").split(None, 7)
            if len(fields) == 8 and int(fields[3], 16) & 0x10000:  # __SO_ACCEPTCON
                found.add(fields[7])
    return found


def api_keys(config: Config, user: str = "") -> Iterator[Finding]:
    """Look at the file of API keys; ``user`` is the API's, "" where it is not known."""
    path = config.api.keys
    if user and rights.denied(user, path):
        message = f"{user} cannot read {path}: the API refuses every key"
        fix = f"chown root:{user} {path} && chmod 0640 {path}"
        yield Finding("api keys", "fail", message, fix)
        return
    try:
        count = len(keys.load(path))
    except ConfigError as error:
        denied = isinstance(error.__cause__, PermissionError) and os.geteuid() != 0
        yield refused("api keys", error, _ROOT if denied else "", "warn" if denied else "fail")
        return
    if count == 0 and not config.api.peer_uids:
        message = f"{path} has no key: no program can ask for tokens by REST"
        yield Finding("api keys", "warn", message, "serial-console key add NAME")
    else:
        yield Finding("api keys", "ok", f"{path}: {count} keys")


def audit_log(path: str) -> Iterator[Finding]:
    """Look at ``log.audit``, which the supervisor writes."""
    if not path:
        yield Finding("audit log", "ok", "none but the journal (log.audit)")
        return
    directory = os.path.dirname(path)
    try:
        os.stat(directory)
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.isdir(directory):
            yield Finding("audit log", "ok", f"{path} will be made with the first event")
        else:
            message = f"{directory} is not there, in which the audit log should be"
            fix = "make it, writable for the supervisor's user alone, or change log.audit"
            yield Finding("audit log", "fail", message, fix)
        return
    except PermissionError:
        yield Finding("audit log", "warn", f"cannot look at {path} as this user", _ROOT)
        return
    if mode & 0o022 or mode & stat.S_IROTH:
        message = f"{path} is open to others (mode {stat.S_IMODE(mode):04o})"
        yield Finding("audit log", "fail", message, f"chmod g-w,o= {path}")
    else:
        yield Finding("audit log", "ok", path)
