"""``serial-console demo``: a guest, a libvirtd of its own and the console, until Ctrl-C."""

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
from collections.abc import Iterator
from typing import NoReturn

from .. import channel, config, control
from ..errors import BadRequest, SetupError, SupervisorUnavailable
from . import guests, host
from .libvirtd import Guest, PrivateLibvirtd

GUEST = "demo"
FIRST_TOKEN_SECONDS = 3600
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
GATEWAY_PORT = 6083
API_PORT = 6084

# Where our package is, there `-m serial_console` finds the one that we are.
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(config_path: str | None) -> int:
    """Run the demo until a signal ends it; nothing of it is left then.

    Args:
        config_path: must be None: the demo writes a configuration of its own.

    Returns:
        The exit status: 0 when ended by a signal, 1 when the console's services ended.

    Raises:
        SetupError: something is missing on this machine, or does not work.
        BadRequest: a configuration was given.
    """
    if config_path is not None:
        raise BadRequest("the demo writes a configuration of its own; leave --config out")
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        with contextlib.ExitStack() as stack:
            return _demo(stack)
    except KeyboardInterrupt:
        _say("\nThe demo has ended and is gone.\n")
        return 0


def _interrupt(*_: object) -> NoReturn:
    """Unwind, once: a second Ctrl-C must not stop the cleaning up."""
    for other in _SIGNALS:
        signal.signal(other, lambda *_: None)  # with SIG_IGN Python complains of one just come
    raise KeyboardInterrupt


def _demo(stack: contextlib.ExitStack) -> int:
    _need_ptys()
    with _step("Linux kernel of the guest"):
        kernel = guests.fetch_kernel(lambda what: _say(f"{what}, "))
    account = host.guest_account()
    with _step("KVM, is it usable (at most 2 s)"):
        kvm = host.kvm_works(account)
        _say("yes, " if kvm else "no, so QEMU emulates the processor, ")
    directory = stack.enter_context(host.short_directory("sc-demo-"))
    with _step("A libvirtd of our own, and the guest (some seconds)"):
        libvirtd = stack.enter_context(PrivateLibvirtd(os.path.join(directory, "d"), account))
        guest = Guest(libvirtd, guests.linux_xml(GUEST, guests.linux(libvirtd, kernel), kvm=kvm))
        guest.define()
        guest.start(paused=True)
    config_path = _write_config(directory, libvirtd.uri)
    log = os.path.join(directory, "serial-console.log")
    with _step("The console's services (a second or two)"):
        services = stack.enter_context(_services(config_path, log))
        command = [*_program(), "--config", config_path, "token", GUEST, "--url"]
        url = _output([*command, "--ttl", str(FIRST_TOKEN_SECONDS)])
    _say(f"""
The guest's serial console, for a browser on this machine; the guest boots when it is opened:

    {url}

Log in as root, without a password. Ctrl-Q ends the session, Ctrl-C here the whole demo.
The link is good for one session, to be opened within an hour. The next one, from another shell:

    {shlex.join(_command(command))}

The guest under virsh:  virsh -c {shlex.quote(libvirtd.uri)} list --all
The services' log:      {log}
""")
    # Nobody keeps what a guest prints while no session is open: so its boot waits for the first.
    admin = config.load(config_path).paths.admin
    while not _session_is_open(admin):
        if _ended(services, 0.2):
            return _services_ended(log)
    if guest.state() == "paused":
        guest.resume()
    _ended(services, None)
    return _services_ended(log)


def _need_ptys() -> None:
    try:
        for fd in os.openpty():
            os.close(fd)
        os.stat("/proc/self/environ")
    except OSError as error:
        raise SetupError(
            f"guests need /proc and /dev/pts, and one does not work here: {error}; "
            "in a chroot: mount -t proc proc /proc; mount -t devpts devpts /dev/pts"
        ) from error


def _session_is_open(admin: str) -> bool:
    with contextlib.suppress(SupervisorUnavailable):  # ended, or it will answer the next time
        sessions = channel.call_all(admin, control.ListSessions(), "sessions")
        return any(one["state"] != "starting" for one in sessions)
    return False


def _write_config(directory: str, uri: str) -> str:
    """Write the demo's configuration and return its path."""
    run = os.path.join(directory, "run")
    os.mkdir(run, 0o700)
    for name in ("console", "control", "api"):
        os.mkdir(os.path.join(run, name), 0o700)
    path = os.path.join(directory, "config.toml")
    # A JSON string is a TOML string.
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"""\
[libvirt]
uri = {json.dumps(uri)}

[paths]
consoles = {json.dumps(os.path.join(run, "console"))}
control = {json.dumps(os.path.join(run, "control"))}
api = {json.dumps(os.path.join(run, "api"))}

[gateway]
listen = "127.0.0.1:{_port(GATEWAY_PORT)}"

[api]
listen = "127.0.0.1:{_port(API_PORT)}"
keys = {json.dumps(os.path.join(directory, "api-keys"))}
""")
    return path


def _port(wanted: int) -> int:
    """Return a free port of the loopback: this one, or any if it is taken."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def _services(config_path: str, log: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``serial-console run`` while the context lasts; on entry it is ready."""
    reading, writing = os.pipe()
    with open(log, "wb") as output, open(reading, "rb") as stdout:
        # A session of its own: a Ctrl-C at our terminal is for us, who then end it in order.
        process = subprocess.Popen(
            [*_program(), "--config", config_path, "run"],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=output,
            start_new_session=True,
        )
        os.close(writing)
        try:
            if not select.select([stdout], [], [], READY_SECONDS)[0]:
                raise SetupError(f"the services were not ready in {READY_SECONDS:.0f} s")
            if stdout.readline() != b"ready\n":
                process.wait(STOP_SECONDS)
                raise SetupError(f"the services did not start: {_tail(log)}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program() -> list[str]:
    return [sys.executable, "-m", "serial_console"]


def _command(command: list[str]) -> list[str]:
    """Put a command of ours as the user would type it, who started us by a name of their own."""
    typed = sys.argv[0]
    if os.path.basename(typed) == "serial-console":
        return [typed, *command[len(_program()) :]]
    return command


def _output(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=_ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SetupError(f"no token for the demo's guest: {done.stderr.strip()}")
    return done.stdout.strip()


def _ended(process: subprocess.Popen[bytes], seconds: float | None) -> bool:
    """Wait for a process, at most so long (None: for ever), and tell whether it has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _services_ended(log: str) -> int:
    sys.stderr.write(f"serial-console: the demo's services have ended: {_tail(log)}\n")
    return 1


def _tail(log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        return " | ".join(file.read().splitlines()[-5:]) or "they said nothing"


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    _say(f"{what} ... ")
    begin = time.monotonic()
    try:
        yield
    except BaseException:
        _say("\n")
        raise
    _say(f"{time.monotonic() - begin:.1f} s\n")


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
