"""The host: its clock, users, what is installed."""

from __future__ import annotations

import ctypes
import grp
import importlib.util
import os
import pwd
import time
from collections.abc import Iterator, Mapping, Set
from importlib import metadata

from .finding import Finding

USERS = ("serial-console", "serial-console-gateway", "serial-console-api")
"""The users of supervisor, gateway and API (systemd/sysusers.d)."""
NEEDED = {"libvirt": "libvirt-python", "websockify": "websockify", "psutil": "psutil"}
API = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}
"""Modules and their packages."""

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class Timex(ctypes.Structure):
    """The head of adjtimex(2)'s ``struct timex``; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("room", ctypes.c_char * 256),
    )


def synchronised() -> tuple[bool, float]:
    """Return whether the kernel knows the time from elsewhere, and how wrong it may be (s)."""
    state = Timex()  # modes 0: only reads
    status = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    return 0 <= status != _TIME_ERROR, state.maxerror / 1e6


def clock(now: float, known: bool, error: float) -> Iterator[Finding]:
    """Look at the clock.

    Args:
        now: Unix seconds.
        known: whether the kernel knows the time from elsewhere.
        error: seconds by which it may be wrong then.
    """
    built = os.stat(__file__).st_mtime
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    ntp = "timedatectl set-ntp true, or install chrony"
    if now < built - 86400:
        message = f"it is {said}, before this program was made: certificates and logs are wrong"
        yield Finding("clock", "fail", message, f"set it: {ntp}")
    elif not known:
        message = f"it is {said}, and no time server says so: audit and certificates depend on it"
        yield Finding("clock", "warn", message, ntp)
    else:
        yield Finding("clock", "ok", f"it is {said}, to {max(error, 0.001):.3f} s")


def memberships() -> dict[str, set[str]]:
    """Return the groups of each of our users that there is."""
    found = {}
    for user in USERS:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            continue
        names = set()
        for number in os.getgrouplist(user, entry.pw_gid):
            try:
                names.add(grp.getgrgid(number).gr_name)
            except KeyError:
                continue
        found[user] = names
    return found


def users(groups: Mapping[str, Set[str]], root: bool) -> Iterator[Finding]:
    """Look at the services' users.

    Args:
        groups: those of each of USERS that there is.
        root: whether the services would run as root without them.
    """
    _, gateway, api = USERS
    if not groups:
        if root:
            message = "the services have no users of their own: run by root, all of them are root"
            yield Finding("users", "warn", message, "install the package, or see docs/systemd.md")
        else:
            yield Finding("users", "ok", "all services run as this user")
        return
    good = True
    for user in USERS:
        if user not in groups:
            good = False
            fix = "systemd-sysusers"
            yield Finding("users", "fail", f"there is no user {user}", fix)
    for user, group in ((gateway, "serial-console-redeem"), (api, "serial-console-admin")):
        if user in groups and group not in groups[user]:
            good = False
            message = f"{user} is not in the group {group}: it cannot reach the supervisor"
            yield Finding("users", "fail", message, f"usermod -aG {group} {user}, restart it")
    for user, group in ((gateway, "serial-console-admin"), (gateway, "libvirt"), (api, "libvirt")):
        if group in groups.get(user, ()):
            good = False
            message = f"{user} is in the group {group}: who breaks into it has far more than it"
            yield Finding("users", "warn", message, f"gpasswd -d {user} {group}, restart it")
    if good:
        yield Finding("users", "ok", ", ".join(groups))


def packages(page: str) -> Iterator[Finding]:
    """Look for what must be installed.

    Args:
        page: the directory of the page's libraries.
    """
    again = "install serial-console again (docs/install.md)"
    gone = [name for module, name in NEEDED.items() if not _there(module)]
    for name in gone:
        yield Finding("packages", "fail", f"the Python package {name} is missing", again)
    if not os.path.isdir(page):
        message = "the page is not built; browsers get none"
        yield Finding("packages", "fail", message, "in a checkout: make setup; else " + again)
    without = without_api()
    if without:
        message = f"there is no REST: {', '.join(without)} missing"
        yield Finding("packages", "warn", message, "pip install 'serial-console[api]'")
    if not gone:
        versions = (f"{name} {_version(name)}" for name in NEEDED.values())
        yield Finding("packages", "ok", ", ".join(versions))


def without_api() -> list[str]:
    """Return what is missing of what the API alone needs, which may be left out."""
    return [name for module, name in API.items() if not _there(module)]


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # Debian's, without metadata
        return "of an unknown version"
