"""The services: do they run, answer, hold their ports, and are they what is installed."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import psutil

from .. import __version__, channel, config, control
from ..child import PREFIX
from ..config import Config
from ..errors import ConsoleError, SupervisorUnavailable, os_reason
from .finding import Finding, refused

SERVICES = ("run", "supervisor", "gateway", "api")
ANSWER = 4.0
"""Seconds for an answer: the supervisor itself gives libvirt 2 s."""
UNITS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
"""Where a unit may be (systemd.unit(5))."""

_START = (
    "systemctl start serial-console.target, or serial-console run; if it does not stay up: "
    "journalctl -u 'serial-console-*'"
)


class Running(NamedTuple):
    """One of our services that runs: its pid, and when it began (Unix s)."""

    service: str
    pid: int
    since: float


def running(path: str | None) -> list[Running]:
    """Find our services that run with this configuration, their own children left out.

    Args:
        path: the configuration, as for config.load().
    """
    wanted = _resolved(config.found(path))
    found: dict[int, Running] = {}
    parents = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            service, file = _service(process.cmdline())
            if not service or process.name().startswith(PREFIX):
                continue  # a relay has its supervisor's arguments, and may outlive it
            if file is None:
                with contextlib.suppress(psutil.AccessDenied):
                    file = process.environ().get("SERIAL_CONSOLE_CONFIG") or None
            if file is None and os.path.exists(config.SYSTEM_FILE):
                file = config.SYSTEM_FILE
            if _resolved(file) == wanted:
                found[process.pid] = Running(service, process.pid, process.create_time())
                parents[process.pid] = process.ppid()
    return [
        one
        for pid, one in sorted(found.items())
        # A connection is a fork of its service and has the same arguments.
        if (up := found.get(parents[pid])) is None or up.service != one.service
    ]


def _resolved(path: str | None) -> str:
    return "" if path is None else os.path.realpath(path)


def _service(arguments: Sequence[str]) -> tuple[str, str | None]:
    """Return which service a command line is of, "" for none, and its --config."""
    rest: list[str] = []
    for number, word in enumerate(arguments[:5]):
        module = word == "serial_console" and arguments[number - 1] == "-m"
        if module or os.path.basename(word) == "serial-console":
            rest = list(arguments[number + 1 :])
            break
    file = None
    while rest and rest[0].startswith("--config"):
        _, equals, value = rest.pop(0).partition("=")
        file = value if equals else rest.pop(0) if rest else None
    return (rest[0] if rest and rest[0] in SERVICES else ""), file


def activated(unit: str, units: Sequence[str] = UNITS) -> bool:
    """Tell whether systemd starts a service when somebody connects: then we do not connect to one
    that does not run, which would start it."""
    booted = os.path.isdir("/run/systemd/system")
    return booted and any(os.path.exists(os.path.join(one, unit)) for one in units)


def supervisor(config_: Config, runs: bool, starts: bool) -> Iterator[Finding]:
    """Ask the supervisor how it is.

    Args:
        config_: the configuration.
        runs: whether its process was seen.
        starts: whether connecting would start it.
    """
    path = config_.paths.admin
    if starts and not runs:
        yield Finding("supervisor", "fail", "the supervisor does not run", _START)
        return
    try:
        answer = channel.call(path, control.Health(), ANSWER)
    except SupervisorUnavailable as error:
        if isinstance(error.__cause__, PermissionError):
            fix = "usermod -aG serial-console-admin USER and log in again, or use root"
            yield Finding("supervisor", "fail", f"this user may not use {path}", fix)
        elif isinstance(error.__cause__, TimeoutError) or runs:
            yield refused("supervisor", error, "see its log, then restart it; sessions go on")
        else:
            yield refused("supervisor", error, _START)
        return
    except ConsoleError as error:
        yield refused("supervisor", error)
        return
    version = str(answer.get("version"))
    if version != __version__:
        message = f"supervisor {version} runs, {__version__} is installed"
        yield Finding("versions", "warn", message, "restart it; sessions go on")
    if (front := answer.get("gateway_version")) not in ("", None, __version__):
        message = f"gateway {front} runs, {__version__} is installed"
        yield Finding("versions", "warn", message, "restart it; its clients come back")
    if old := sorted({*answer.get("relay_versions", ())} - {__version__}):
        message = f"sessions of {', '.join(map(str, old))} go on beside {__version__}"
        yield Finding("versions", "ok", message)
    if answer.get("libvirt") != "ok":
        message = "the supervisor gets no answer from libvirt within 2 s"
        yield Finding("supervisor", "fail", message, "see the checks of libvirt")
    else:
        message = f"version {version}, {answer.get('sessions')} sessions, libvirt answers it"
        yield Finding("supervisor", "ok", message)


def versions(running_: Sequence[Running], installed: float) -> Iterator[Finding]:
    """Look for processes that are older than the program that is installed.

    Args:
        running_: our services that run.
        installed: when the program's files were put where they are (Unix s).
    """
    old = [one for one in running_ if one.since + 1 < installed]
    for one in old:
        message = f"the {one.service} (pid {one.pid}) runs since before {__version__} was installed"
        yield Finding("versions", "warn", message, f"restart the {one.service}")
    if running_ and not old:
        names = ", ".join(f"{one.service} (pid {one.pid})" for one in running_)
        yield Finding("versions", "ok", f"{names} run {__version__}, as installed")
    elif not running_:
        yield Finding("versions", "ok", f"{__version__} is installed; no service of it is seen")


def installed_at() -> float:
    """Return when our files were put where they are: their times of writing are the build's."""
    plugin = importlib.util.find_spec("websockify_tokens")  # not imported: it wants websockify
    files = [__file__, *([plugin.origin] if plugin and plugin.origin else [])]
    return max(os.stat(one).st_ctime for one in files)


def gateway(config_: Config, runs: bool, starts: bool) -> Iterator[Finding]:
    """Look who is at the gateway's port; arguments as supervisor()'s."""
    listen = config_.gateway.listen
    tls = bool(config_.gateway.tls_cert)
    return _port("gateway", listen, tls, runs, starts, lambda answer: answer == b"ok\n")


def api(config_: Config, runs: bool, starts: bool) -> Iterator[Finding]:
    """Look who is at the API's port; arguments as supervisor()'s."""

    def ours(answer: bytes) -> bool:
        try:
            return msgspec.json.decode(answer, type=_Life).status == "ok"
        except msgspec.DecodeError:
            return False

    return _port("api", config_.api.listen, False, runs, starts, ours)


class _Life(msgspec.Struct):
    status: str
    version: str


def _port(
    name: str, listen: str, tls: bool, runs: bool, starts: bool, ours: Callable[[bytes], bool]
) -> Iterator[Finding]:
    host, port = config.address(listen)
    check = f"{name} port"
    if port == 0:
        message = f"{name}.listen is {listen}: the kernel chooses a port, the log says which"
        yield Finding(check, "ok", message)
        return
    if starts and not runs:
        yield Finding(check, "fail", f"the {name} does not run", _START)
        return
    holder = _holder(port)  # before its process for our connection comes and goes
    try:
        answer = _healthz(_own(host), port, tls)
    except ConnectionRefusedError:
        message = f"nobody listens on {listen}: the {name} does not run"
        yield Finding(check, "fail", message, _START)
        return
    except TimeoutError:
        message = f"who listens on {listen} gives no answer within {ANSWER:g} s"
        fix = f"see the {name}'s log, then restart it"
        yield Finding(check, "fail", message, fix)
        return
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and not isinstance(error, (ssl.SSLError, ConnectionError)):
            message = f"cannot connect to {listen}: {os_reason(error)}"
            yield Finding(check, "fail", message, f"correct {name}.listen")
            return
        answer = b""
    if ours(answer):
        yield Finding(check, "ok", f"the {name} answers on {listen}")
    else:
        message = f"{listen} is taken by {holder}, not by the {name}"
        fix = f"end that program, or choose another {name}.listen"
        yield Finding(check, "fail", message, fix)


def _own(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _healthz(host: str, port: int, tls: bool) -> bytes:
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the checks of tls look at the certificate
        link: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=ANSWER / 2, context=context
        )
    else:
        link = http.client.HTTPConnection(host, port, timeout=ANSWER / 2)
    with contextlib.closing(link):
        link.request("GET", "/healthz")
        return link.getresponse().read(1024)


def _holder(port: int) -> str:
    """Say who listens on a port, as far as this user may see."""
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid:
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    return "another program (root sees which)"
