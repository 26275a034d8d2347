"""The configuration file, and what its keys mean together."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from .. import config
from ..config import Gateway
from . import rights
from .finding import Finding

_LOCAL = ("localhost", "127.0.0.1", "::1")


def file(path: str | None, users: Sequence[str] = ()) -> Iterator[Finding]:
    """Look at the configuration file.

    Args:
        path: as for config.load().
        users: the services', where they are known: who has to be able to read it.
    """
    found = config.found(path)
    wrong = config.mistakes(path)
    for mistake in wrong:
        message, _, advice = mistake.partition("; ")
        fix = advice or "correct that key; serial-console config check names what is wrong"
        yield Finding("config", "fail", message, fix)
    if found is None:
        if not wrong:
            yield Finding("config", "ok", f"{config.SYSTEM_FILE} is not there: all is default")
        return
    try:
        mode = os.stat(found).st_mode
    except OSError:  # told of as a mistake
        return
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = f"{found} can be written by others (mode {stat.S_IMODE(mode):04o})"
        yield Finding("config", "fail", message, f"chmod go-w {found}")
    elif denied := [user for user in users if rights.denied(user, found)]:
        message = f"{', '.join(denied)} cannot read {found}"
        yield Finding("config", "fail", message, f"chmod a+r {found}; a+x for its directories")
    elif not wrong:
        yield Finding("config", "ok", found)


def page(directory: str, user: str = "") -> Iterator[Finding]:
    """Look at the operator's settings of the page as the gateway does, whose user is ``user``."""
    from websockify_tokens import pages  # it needs websockify, which may be missing

    offered = pages.Pages("/nonexistent", directory)
    for name in ("defaults.json", "mandatory.json"):
        try:
            with rights.of(user):
                offered.find(f"/{name}")
        except pages.SettingsError as error:
            fix = "correct that file; until then the page opens for nobody"
            yield Finding("page settings", "fail", str(error), fix)
        else:
            there = os.path.exists(os.path.join(directory, name))
            message = os.path.join(directory, name)
            yield Finding("page settings", "ok", message if there else f"no {message}")


def origin(gateway: Gateway) -> Iterator[Finding]:
    """Look whether ``public_url``, ``allowed_origins``, ``listen`` and TLS fit together."""
    problems = list(_misfits(gateway))
    yield from problems
    if not problems:
        where = gateway.public_url or f"{_scheme(gateway)}://{gateway.listen}"
        others = ", ".join(gateway.allowed_origins)
        message = f"browsers come to {where}" + (f" and from {others}" if others else "")
        yield Finding("origin", "ok", message)


def _scheme(gateway: Gateway) -> str:
    return "https" if gateway.tls_cert else "http"


def _misfits(gateway: Gateway) -> Iterator[Finding]:
    host, port = config.address(gateway.listen)
    public = urlsplit(gateway.public_url)
    loopback = host in _LOCAL
    if gateway.public_url and not loopback and public.hostname in _LOCAL:
        message = f"gateway.public_url is {gateway.public_url}, which is each browser's own host"
        yield Finding("origin", "warn", message, "write the name by which browsers reach this host")
    if gateway.tls_cert and public.scheme == "http":
        message = f"gateway.public_url is {gateway.public_url}, and with TLS plain HTTP is refused"
        yield Finding("origin", "fail", message, "write https:// there, or drop tls_cert, tls_key")
    if not gateway.public_url and gateway.trusted_proxies:
        message = "there are trusted_proxies and no public_url: links lead past the proxy"
        yield Finding("origin", "warn", message, "set gateway.public_url to the proxy's URL")
    if not gateway.public_url and (port == 0 or host in ("0.0.0.0", "::")):
        message = f"gateway.listen is {gateway.listen}, which no browser can use in a link"
        yield Finding("origin", "warn", message, "set gateway.public_url to this host's URL")
    if public.scheme == "https" and not gateway.tls_cert and not gateway.trusted_proxies:
        message = (
            "a proxy with TLS stands in front (public_url) and trusted_proxies is empty: all "
            "clients seem to have its address"
        )
        yield Finding("origin", "warn", message, "set gateway.trusted_proxies to its address")
    if gateway.insecure and not loopback and not gateway.tls_cert:
        message = f"plain HTTP on {gateway.listen}: what is typed, and tokens, can be read"
        fix = "set tls_cert and tls_key, or see that only the TLS proxy reaches that port"
        yield Finding("origin", "warn", message, fix)
    https = public.scheme == "https" or bool(gateway.tls_cert)
    for one in gateway.allowed_origins:
        if https and one.startswith("http://"):
            message = f"gateway.allowed_origins has {one}: whoever alters that page types here"
            yield Finding("origin", "warn", message, f"serve that page by TLS, as https{one[4:]}")
