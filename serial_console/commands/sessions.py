"""``token``, ``guests``, ``sessions``, ``top``, ``close``, ``attach``: who is at which console."""

from __future__ import annotations

import argparse
import math

from .. import channel, config, control, views
from ..output import amount, say, table
from . import Commands

SORTS = ("activity", "cpu", "memory", "idle", "guest")
"""By what ``top`` sorts; its key ``s`` goes on to the next."""


def add(commands: Commands) -> None:
    """Add them."""
    token = commands.add("token", _token, "issue a token for a guest's console and print it")
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
        listing = commands.add(name, run, help_)
        listing.add_argument("--json", action="store_true", help="print REST's objects")

    live = commands.add("top", _top, "show the open sessions as they go, the busiest first")
    live.add_argument(
        "--interval", type=_interval, default=1.0, metavar="S", help="seconds (default: 1)"
    )
    live.add_argument("--sort", choices=SORTS, default=SORTS[0], help=f"default: {SORTS[0]}")

    close = commands.add("close", _close, "close a session")
    which = close.add_mutually_exclusive_group(required=True)
    which.add_argument("session", metavar="SESSION", nargs="?", help="its id")
    which.add_argument("--all", action="store_true", help="close every session")

    attach = commands.add("attach", _attach, "attach this terminal to a guest's console")
    attach.add_argument("guest", metavar="GUEST", help="name or UUID")
    _console_options(attach)
    attach.add_argument(
        "--escape",
        default="^]",
        metavar="KEY",
        help='the key that ends it (default: ^]; "" = none)',
    )


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


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("write seconds from 0.1 to 3600")
    return seconds


def _token(options: argparse.Namespace) -> int:
    from ..attach import login_name

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
            amount(one.memory),
            f"{one.cpu:.1f} s",
        )
        for one in sessions
    ]
    titles = ("ID", "GUEST", "CONSOLE", "MODE", "USER", "CLIENT", "STATE", "SINCE", "IDLE")
    table((*titles, "TYPED", "SHOWN", "MEMORY", "CPU"), rows)
    return 0


def _top(options: argparse.Namespace) -> int:
    from ..top import top

    return top(config.load(options.config).paths.admin, options.interval, options.sort)


def _close(options: argparse.Namespace) -> int:
    from ..attach import login_name

    admin = config.load(options.config).paths.admin
    request = control.Close(id=options.session, by=login_name())
    count = channel.call(admin, request).get("closed")
    say(f"{count} {'session' if count == 1 else 'sessions'} closed")
    return 0


def _attach(options: argparse.Namespace) -> int:
    from ..attach import attach

    return attach(
        config.load(options.config),
        options.guest,
        mode=options.mode,
        console=options.console,
        takeover=options.takeover,
        escape=options.escape,
    )
