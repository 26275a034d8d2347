"""``key``: the API's keys."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from .. import channel, config, control
from ..errors import BadRequest, ConsoleError, SetupError
from ..output import say, table
from . import Commands


def add(commands: Commands) -> None:
    """Add them."""
    group = commands.group("key", "manage API keys")
    new = group.add("add", _add, "make a key and print it, once")
    new.add_argument("name", metavar="NAME", help="who it is for")
    new.add_argument(
        "--guests",
        action="append",
        metavar="GLOB",
        help="limit it to guests of such names; may be repeated",
    )
    new.add_argument("--mode", choices=("rw", "ro"), default="rw", help="ro: only watch")
    listed = group.add("list", _list, "list the keys, without their secrets")
    listed.add_argument("--json", action="store_true", help="print an array")
    revoke = group.add("revoke", _revoke, "make a key useless, at once")
    revoke.add_argument("name", metavar="NAME", help="whose it is")
    revoke.add_argument("--close", action="store_true", help="end the sessions it gave, too")


def _add(options: argparse.Namespace) -> int:
    from .. import keys
    from ..attach import login_name

    settings = config.load(options.config)
    secret = keys.add(settings.api.keys, options.name, options.guests or ["*"], options.mode)
    with contextlib.suppress(ConsoleError):  # a supervisor that is not there writes no audit log
        event = control.Audit(event="key_added", key=options.name, by=login_name())
        channel.call(settings.paths.admin, event)
    say(secret)
    sys.stderr.write("This key is shown once; it is good at once.\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    from .. import keys

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


def _revoke(options: argparse.Namespace) -> int:
    from .. import keys
    from ..attach import login_name

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
