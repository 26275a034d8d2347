"""The certificate and its key: there, a pair, in date, for the right name, closed to others."""

from __future__ import annotations

import fnmatch
import logging
import os
import ssl
import stat
from collections.abc import Iterator
from urllib.parse import urlsplit

from websockify_tokens.tls import Certificate, CertificateError, peer

from ..config import Gateway
from ..errors import os_reason
from . import rights
from .finding import Finding

SOON = 14
"""Days before its end in which a certificate should have been renewed: certbot does it 30 before,
and renews certificates of 45 days a third of their life before, which is 15."""

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h
_DAY = 86400
_RENEW = "renew it; the gateway reads new files by itself, within a connection"


def check(gateway: Gateway, now: float, user: str = "") -> Iterator[Finding]:
    """Look at ``gateway.tls_cert`` and ``tls_key``.

    Args:
        gateway: the settings.
        now: Unix seconds.
        user: the gateway's, "" where it is not known: who has to be able to read them.
    """
    cert, key = gateway.tls_cert, gateway.tls_key
    if not cert:
        yield Finding("tls", "ok", "none: the gateway speaks plain HTTP")
        return
    try:
        status = os.stat(key)
        if stat.S_IMODE(status.st_mode) & 0o027:
            mode = stat.S_IMODE(status.st_mode)
            message = f"the key {key} is open to others (mode {mode:04o})"
            yield Finding("tls key", "fail", message, f"chmod g-w,o= {key}")
        else:
            yield Finding("tls key", "ok", key)
    except OSError as error:
        yield _unseen(key, error)
    try:
        names = _names(cert, key)
    except CertificateError as error:
        unseen = any(os.path.exists(one) and not os.access(one, os.R_OK) for one in (cert, key))
        if unseen and os.geteuid() != 0:
            yield Finding("tls", "warn", str(error), "run doctor as root to look at it")
        else:
            yield Finding("tls", "fail", str(error), "correct gateway.tls_cert and gateway.tls_key")
        return
    for path in (cert, key):
        if user and rights.denied(user, path):
            message = f"{user} cannot read {path}: the gateway does not start"
            fix = f"chgrp {user} {path} && chmod g+r {path}; the same with g+x for its directories"
            yield Finding("tls", "fail", message, fix)
            return
    yield _dates(cert, names, now)
    host = urlsplit(gateway.public_url).hostname
    if host and not any(fnmatch.fnmatch(host, name) for name in _hosts(names)):
        message = f"{cert} is not for {host}, the host of gateway.public_url"
        fix = f"get a certificate for {host}; it has {', '.join(_hosts(names)) or 'no names'}"
        yield Finding("tls name", "warn", message, fix)


def _dates(cert: str, names: dict[str, object], now: float) -> Finding:
    begins, ends = (ssl.cert_time_to_seconds(str(names[key])) for key in ("notBefore", "notAfter"))
    if now < begins:
        message = f"{cert} is not yet valid: it begins {names['notBefore']}"
        return Finding("tls", "fail", message, "is this host's clock right? else renew it")
    days = int((ends - now) // _DAY)
    if now >= ends:
        return Finding("tls", "fail", f"{cert} has expired: it ended {names['notAfter']}", _RENEW)
    if days < SOON:
        # A certificate of a day or a week is meant to be renewed that often.
        short = (ends - begins) / 3 < SOON * _DAY and (ends - now) > (ends - begins) / 3
        message = f"{cert} ends in {days} days"
        return Finding("tls", "ok", message) if short else Finding("tls", "warn", message, _RENEW)
    return Finding("tls", "ok", f"{cert} is good for {days} days")


def _names(cert: str, key: str) -> dict[str, object]:
    """Return what a client is shown of a certificate, in date or not."""
    quiet = logging.Logger("doctor")
    quiet.addHandler(logging.NullHandler())
    try:
        return peer(Certificate(cert, key, quiet).context(), cert, _NO_CHECK_TIME)
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(
            f"browsers will refuse the certificate {cert}: {error.verify_message}"
        ) from error


def _hosts(names: dict[str, object]) -> list[str]:
    found = names.get("subjectAltName")
    return [value.lower() for _, value in found] if isinstance(found, tuple) else []


def _unseen(path: str, error: OSError) -> Finding:
    if isinstance(error, PermissionError):
        message, fix = f"cannot look at {path} as this user", "run doctor as root to look at it"
        return Finding("tls key", "warn", message, fix)
    message = f"cannot look at {path}: {os_reason(error)}"
    return Finding("tls key", "fail", message, "correct gateway.tls_key")
