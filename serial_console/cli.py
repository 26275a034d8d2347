"""The command line: arguments and wiring only. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from . import __version__, channel, config, control, log, names, views
from .errors import BadRequest, ConsoleError, SetupError
from .output import drop, say, table

PROGRAM = "serial-console"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None for those of this process.

    Returns:
        The exit status: 0 done, 1 refused or failed (with one line on stderr). Wrong usage exits
        with status 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except ConsoleError as error:
        sys.stderr.write(f"{PROGRAM}: {names.printable(' '.join(str(error).split()))}\n")
        return error.exit
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        drop()  # the reader is gone
        return 1
    return status


# ---- services


def _supervisor(options: argparse.Namespace) -> int:
    from .supervisor import serve

    return serve(_service_config(options))


def _gateway(options: argparse.Namespace) -> int:
    from .gateway import serve

    return serve(_service_config(options), config.directory(options.config))


def _api(options: argparse.Namespace) -> int:
    try:
        from .api_server import serve
    except ModuleNotFoundError as error:
        raise SetupError(
            f"the package {error.name} is missing, which the API needs; "
            "run: pip install 'serial-console[api]'"
        ) from None
    return serve(_service_config(options))


def _run(options: argparse.Namespace) -> int:
    from . import run

    _service_config(options)
    return run.run(run.services(options.config))


def _service_config(options: argparse.Namespace) -> config.Config:
    settings = config.load(options.config)
    log.start(settings.log.level, settings.log.format)
    return settings


def _demo(options: argparse.Namespace) -> int:
    from .demo.demo import main as demo_main

    return demo_main(options.config)


# ---- guests and sessions


def _token(options: argparse.Namespace) -> int:
    from .attach import login_name

    settings = config.load(options.config)
    request = control.Issue(
        guest=options.guest,
        by=login_name(),
        user=login_name() if options.user is None else options.user,
        mode=options.mode,
        console=options.console,
        ttl=options.ttl,
        takeover=options.takeover,
    )
    token = views.token(settings, channel.call(settings.paths.admin, request))
    if options.json:
        say(views.to_json(token))
    else:
        say(token.page_url if options.url else token.token)
    return 0


def _guests(options: argparse.Namespace) -> int:
    admin = config.load(options.config).paths.admin
    guests = [views.guest(one) for one in channel.call_all(admin, control.ListGuests(), "guests")]
    if options.json:
        say(views.to_json(guests))
        return 0
    rows = [
        (
            one.name,
            one.state,
            " ".join(
                console.alias if console.supported else f"({console.alias}: {console.type})"
                for console in one.consoles
            )
            or "none",
            len(one.sessions),
            one.uuid,
        )
        for one in guests
    ]
    table(("GUEST", "STATE", "CONSOLES", "SESSIONS", "UUID"), rows)
    return 0


def _sessions(options: argparse.Namespace) -> int:
    admin = config.load(options.config).paths.admin
    found = channel.call_all(admin, control.ListSessions(), "sessions")
    sessions = [views.session(one) for one in found]
    if options.json:
        say(views.to_json(sessions))
        return 0
    rows = [
        (
            one.id,
            one.guest,
            one.console,
            one.mode,
            one.user or "-",
            one.client or "-",
            one.state,
            one.opened_at.partition(".")[0] + "Z",
            f"{one.idle:.0f} s",
            one.bytes_in,
            one.bytes_out,
        )
        for one in sessions
    ]
    titles = ("ID", "GUEST", "CONSOLE", "MODE", "USER", "CLIENT", "STATE", "SINCE", "IDLE")
    table((*titles, "TYPED", "SHOWN"), rows)
    return 0


def _close(options: argparse.Namespace) -> int:
    from .attach import login_name

    admin = config.load(options.config).paths.admin
    request = control.Close(id=options.session, by=login_name())
    count = channel.call(admin, request).get("closed")
    say(f"{count} {'session' if count == 1 else 'sessions'} closed")
    return 0


def _attach(options: argparse.Namespace) -> int:
    from .attach import attach

    return attach(
        config.load(options.config),
        options.guest,
        mode=options.mode,
        console=options.console,
        takeover=options.takeover,
        escape=options.escape,
    )


# ---- keys and configuration


def _key_add(options: argparse.Namespace) -> int:
    from . import keys
    from .attach import login_name

    settings = config.load(options.config)
    secret = keys.add(settings.api.keys, options.name, options.guests or ["*"], options.mode)
    with contextlib.suppress(ConsoleError):  # a supervisor that is not there writes no audit log
        event = control.Audit(event="key_added", key=options.name, by=login_name())
        channel.call(settings.paths.admin, event)
    say(secret)
    sys.stderr.write("This key is shown once; it is good at once.\n")
    return 0


def _key_list(options: argparse.Namespace) -> int:
    from . import keys

    found = keys.load(config.load(options.config).api.keys)
    if options.json:
        shown = [
            {"name": key.name, "guests": key.guests, "mode": key.mode, "created": key.created}
            for key in found
        ]
        say(json.dumps(shown, indent=2))
        return 0
    rows = [(key.name, key.mode, " ".join(key.guests), key.created) for key in found]
    table(("NAME", "MODE", "GUESTS", "CREATED"), rows)
    return 0


def _key_revoke(options: argparse.Namespace) -> int:
    from . import keys
    from .attach import login_name

    settings = config.load(options.config)
    unknown = None
    try:
        keys.revoke(settings.api.keys, options.name)
    except BadRequest as error:
        if not options.close:
            raise
        unknown = error  # or revoked before, and its sessions are there still
    request = control.RevokeKey(key=options.name, close=options.close, by=login_name())
    try:
        done = channel.call(settings.paths.admin, request)
    except ConsoleError as error:
        gone = isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError)
        if gone and not options.close:
            return 0  # unused tokens are gone with their supervisor
        key = "there is no such key" if unknown else "the key is revoked"
        raise SetupError(f"{key}, but what it has given could not be revoked: {error}") from error
    if unknown and not done.get("tokens") and not done.get("sessions"):
        raise unknown
    say(f"{done.get('tokens')} unused tokens revoked, {done.get('sessions')} sessions closed")
    return 0


# ---- the audit log


def _audit_verify(options: argparse.Namespace) -> int:
    from .verify import report

    for line in report(config.load(options.config), options.files):
        say(names.printable(line))  # it may be about what somebody else has written
    return 0


def _config_check(options: argparse.Namespace) -> int:
    config.load(options.config)
    path = options.config or os.environ.get("SERIAL_CONSOLE_CONFIG") or config.SYSTEM_FILE
    say(f"{path}: ok" if os.path.exists(path) else f"{path}: not there; the defaults are ok")
    return 0


def _config_show(options: argparse.Namespace) -> int:
    settings: dict[str, dict[str, Any]] = msgspec.to_builtins(config.load(options.config))
    tables = []
    for name, section in settings.items():
        # The strings, numbers and lists that we have are written alike in TOML and JSON.
        keys = [
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in section.items()
        ]
        tables.append("\n".join([f"[{name}]", *keys]))
    say("\n\n".join(tables))
    return 0


# ---- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        PROGRAM, description="Browser serial console for libvirt guests.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("--config", metavar="FILE", help=f"default: {config.SYSTEM_FILE}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help_: str, within: Any = commands
    ) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = within.add_parser(
            name, help=help_, description=help_[0].upper() + help_[1:] + ".", allow_abbrev=False
        )
        added.set_defaults(command=run)
        return added

    command("run", _run, "run supervisor, gateway and api together in the foreground")
    command("supervisor", _supervisor, "run the supervisor, which starts and watches relays")
    command("gateway", _gateway, "run the gateway, where browsers connect")
    command("api", _api, "run the REST interface")

    token = command("token", _token, "issue a token for a guest's console and print it")
    token.add_argument("guest", metavar="GUEST", help="name or UUID")
    token.add_argument("--user", help="who will use it (default: you)")
    _console_options(token)
    token.add_argument("--ttl", type=_ttl, metavar="S", help="seconds within which to use it")
    form = token.add_mutually_exclusive_group()
    form.add_argument("--url", action="store_true", help="print the URL of the page with it")
    form.add_argument("--json", action="store_true", help="print what REST answers")

    for name, run, help_ in (
        ("guests", _guests, "list guests and their consoles"),
        ("sessions", _sessions, "list open sessions"),
    ):
        listing = command(name, run, help_)
        listing.add_argument("--json", action="store_true", help="print REST's objects")

    close = command("close", _close, "close a session")
    which = close.add_mutually_exclusive_group(required=True)
    which.add_argument("session", metavar="SESSION", nargs="?", help="its id")
    which.add_argument("--all", action="store_true", help="close every session")

    attach = command("attach", _attach, "attach this terminal to a guest's console")
    attach.add_argument("guest", metavar="GUEST", help="name or UUID")
    _console_options(attach)
    attach.add_argument(
        "--escape",
        default="^]",
        metavar="KEY",
        help='the key that ends it (default: ^]; "" = none)',
    )

    keys = parser_group(commands, "key", "manage API keys")
    add = command("add", _key_add, "make a key and print it, once", keys)
    add.add_argument("name", metavar="NAME", help="who it is for")
    add.add_argument(
        "--guests",
        action="append",
        metavar="GLOB",
        help="limit it to guests of such names; may be repeated",
    )
    add.add_argument("--mode", choices=("rw", "ro"), default="rw", help="ro: only watch")
    listed = command("list", _key_list, "list the keys, without their secrets", keys)
    listed.add_argument("--json", action="store_true", help="print an array")
    revoke = command("revoke", _key_revoke, "make a key useless, at once", keys)
    revoke.add_argument("name", metavar="NAME")
    revoke.add_argument("--close", action="store_true", help="end the sessions it gave, too")

    audit = parser_group(commands, "audit", "check the audit log")
    verify = command("verify", _audit_verify, "say whether any line is missing or altered", audit)
    verify.add_argument(
        "files", metavar="FILE", nargs="*", help="oldest first (default: log.audit)"
    )

    settings = parser_group(commands, "config", "check or show the configuration")
    command("check", _config_check, "say whether the configuration is right", settings)
    command("show", _config_show, "print every setting as it is in effect", settings)

    command("demo", _demo, "build and start a guest to try it all with")
    return parser


def parser_group(commands: Any, name: str, help_: str) -> Any:
    """Add a command that has commands of its own, and return where they go."""
    group = commands.add_parser(name, help=help_, allow_abbrev=False)
    return group.add_subparsers(required=True, metavar="COMMAND")


def _console_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mode", choices=("rw", "ro"), default="rw", help="ro: only watch")
    parser.add_argument("--console", metavar="ALIAS", help="default: the guest's first")
    parser.add_argument(
        "--takeover", action="store_true", help="take the console from the client that has it"
    )


def _ttl(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= control.TTL_MAX:
        raise argparse.ArgumentTypeError(f"write seconds from 1 to {control.TTL_MAX}")
    return int(text)
