"""libvirt as the supervisor and its relays will find it: daemon, rights, events, consoles."""

from __future__ import annotations

import glob
import os
import pwd
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from .. import guest
from ..connection import KEEPALIVE
from ..consoles import logs, pick
from ..control import GuestInfo
from ..errors import LibvirtDenied, LibvirtUnavailable, NoSuchConsole, NoSuchGuest
from ..names import shown
from ..streamline import UNREAD
from .finding import Finding, Status, refused

ETC = "/etc/libvirt"
RUN = "/run/libvirt"
REQUESTS = UNREAD[0]
"""What libvirtd's max_client_requests is by default, and what relays count on."""

_DEFINE = 'virsh edit it, add <serial type="pty"/> to <devices>, shut it down and start it again'


def check(uri: str, user: str = "", own: bool = True) -> Iterator[Finding]:
    """Connect to libvirt as a relay does, and look at each guest's console. It may hang.

    Args:
        uri: libvirt's.
        user: whom to become before, for good; "" for nobody else.
        own: whether that is the supervisor's user, whose rights count.
    """
    denied: Status = "fail" if own else "warn"
    as_root = "" if own else "run doctor as root: it asks with the supervisor's rights then"
    who = _become(user) if user else _name_of(os.geteuid())
    guest.silence()
    loop = guest.event_loop()
    try:
        reading = guest.connect(uri, readonly=True)
        version = guest.version(reading)
    except LibvirtDenied as error:
        yield refused("libvirt rights", error, as_root, denied)
        return
    except LibvirtUnavailable as error:
        fix = "systemctl start libvirtd (or virtqemud.socket); then: journalctl -u libvirtd"
        yield refused("libvirt", error, fix)
        return
    yield Finding("libvirt", "ok", f"{uri} answers, version {version}")
    try:
        connection = guest.connect(uri)
        yield Finding("libvirt rights", "ok", f"{who} may open consoles, unless polkit says no")
    except LibvirtUnavailable as error:
        fix = f"put {who} into the group libvirt, or see docs/libvirt-polkit.md"
        yield refused("libvirt rights", error, as_root or fix, denied)
        connection = None
    if connection is not None:
        try:
            guest.hear(connection, loop, KEEPALIVE)
            yield Finding(
                "event loop", "ok", "libvirt has us down for its events; none was provoked"
            )
        except LibvirtUnavailable as error:
            yield refused("event loop", error, "restart libvirtd; guests go on")
    domains = guest.find_all(reading)
    if not domains:
        message = f"{uri} has no guest that {who} may see"
        yield Finding("console", "warn", message, "is libvirt.uri right? virsh -c URI list --all")
    for domain in domains:
        try:
            described, xml = guest.describe(domain), guest.xml(domain)
        except NoSuchGuest:
            continue
        yield from console(described, xml)


def console(described: GuestInfo, xml: str) -> Iterator[Finding]:
    """Look at a guest's first console, and at each other one that can be opened.

    Args:
        described: the guest.
        xml: its description by libvirt.
    """
    name = f"console {shown(described.name)}"
    try:
        pick(described, None)
    except NoSuchConsole as error:
        yield refused(name, error, _DEFINE, "warn")
    files = logs(xml)
    for one in described.consoles:
        if one.supported:
            message = f"{one.alias} ({one.type}), {described.state}"
            running = described.state == "running"
            yield _prints(name, message, files.get(one.alias, ""), running, _getty(one.alias))


def _prints(name: str, message: str, log: str, running: bool, getty: str) -> Finding:
    if not log:  # nobody knows whether the guest uses it
        return Finding(name, "ok", f"{message}, no log; if blank, it needs a getty")
    message += f", log {shown(log, 200)}"
    try:
        size = os.stat(log).st_size
    except OSError:
        size = -1
    if size == 0 and running:
        return Finding(name, "warn", f"{message}: it has printed nothing yet", getty)
    return Finding(name, "ok", message)


def _getty(alias: str) -> str:
    """Return how Linux in a guest is made to use a console, by the name that it has there."""
    number = alias.removeprefix("serial")
    tty = f"ttyS{number}" if number.isdecimal() else "hvc0"
    return (
        f"in the guest: console={tty} on its kernel's command line, and "
        f"systemctl enable --now serial-getty@{tty}"
    )


def _become(user: str) -> str:
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    return user


def _name_of(uid: int) -> str:
    """Return a user's name, or the number of one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


# ---- what libvirt's own files say


def local(uri: str) -> str:
    """Return ``system`` or ``session`` for a libvirt of this host at its usual place, else ""."""
    parts = urlsplit(uri)
    if parts.scheme not in ("qemu", "qemu+unix") or parts.netloc or parse_qs(parts.query):
        return ""
    return parts.path.strip("/")


def virtlogd(uri: str, etc: str = ETC, run: str = RUN) -> Iterator[Finding]:
    """Look whether virtlogd can be reached, without which libvirt starts no guest.

    Args:
        uri: libvirt's.
        etc: where qemu.conf is.
        run: where virtlogd's socket is.
    """
    path = os.path.join(run, "virtlogd-sock")
    if local(uri) != "system":
        message = f"not looked for with {uri}: its libvirtd starts one itself, or is elsewhere"
        yield Finding("virtlogd", "ok", message)
    elif os.path.exists(path):
        yield Finding("virtlogd", "ok", path)
    elif _setting(os.path.join(etc, "qemu.conf"), "stdio_handler") == "file":
        yield Finding("virtlogd", "ok", 'not used: stdio_handler = "file"')
    else:
        message = f"{path} is not there: guests cannot be started, and log nothing"
        yield Finding("virtlogd", "fail", message, "systemctl enable --now virtlogd.socket")


def client_requests(uri: str, etc: str = ETC, run: str = RUN) -> Iterator[Finding]:
    """Look at ``max_client_requests`` of libvirt's daemon; arguments as virtlogd()'s."""
    where = local(uri)
    if where == "session":
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        etc = os.path.join(base, "libvirt")
    elif where != "system":
        message = f"not known with {uri}; relays count on {REQUESTS}"
        yield Finding("max_client_requests", "ok", message)
        return
    modular = os.path.exists(os.path.join(run, "virtqemud-sock"))
    path = os.path.join(etc, "virtqemud.conf" if modular else "libvirtd.conf")
    try:
        text = _setting(path, "max_client_requests") or str(REQUESTS)
    except PermissionError:
        message = f"cannot look into {path} as this user"
        yield Finding("max_client_requests", "warn", message, "run doctor as root to look at it")
        return
    number = int(text) if text.isdecimal() else 0
    if number < REQUESTS:
        message = f"{path} has {shown(text)}: a console may stay taken for 30 s after its session"
        fix = f"set max_client_requests = {REQUESTS} or more there, restart libvirtd"
        yield Finding("max_client_requests", "warn", message, fix)
    else:
        yield Finding("max_client_requests", "ok", f"{number}")


def _setting(path: str, key: str) -> str:
    """Return a key's value in a file of libvirt's, "" where it has its default."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.findall(rf'^\s*{key}\s*=\s*"?([^"#\s]*)', file.read(), re.MULTILINE)
    except FileNotFoundError:
        return ""
    return found[-1] if found else ""


def locks(directory: str = "/var/lock") -> Iterator[Finding]:
    """Look for locks on consoles that a libvirtd which crashed has left (libvirt 9.0)."""
    stale = []
    for path in glob.glob(os.path.join(glob.escape(directory), "LCK.._pts_*")):
        try:
            with open(path, encoding="ascii") as file:
                owner = int(file.read(32))
            if not os.path.exists(f"/proc/{owner}"):
                stale.append(path)
        except (OSError, ValueError):
            continue
    for path in stale:
        message = f"{path} is of a process that is gone: that console seems taken"
        yield Finding("locks", "warn", message, f"rm {path}")
    if not stale:
        yield Finding("locks", "ok", "no console is locked by a process that is gone")
