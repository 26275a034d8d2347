"""The gateway's process entry: our configuration in websockify_tokens' words.

websockify_tokens knows nothing of this package, so that it can be installed without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import warnings

# websockify warns that without numpy it unmasks slowly; frames.py does that here. With it the
# gateway has 5.7 MiB more, each of its children 0.6 MiB more of its own, and starts 0.2 s later.
with warnings.catch_warnings(action="ignore"):
    _numpy = sys.modules.get("numpy")  # of a program that has us beside other things
    sys.modules["numpy"] = None  # type: ignore[assignment]
    from websockify_tokens.server import Rules, Settings
    from websockify_tokens.server import serve as serve_settings
    from websockify_tokens.tls import CertificateError

    del sys.modules["numpy"]
    if _numpy is not None:
        sys.modules["numpy"] = _numpy

from . import sd
from .config import Gateway, address, networks
from .errors import SetupError, os_reason
from .reload import Current

_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None)

WEB = os.path.join(os.path.dirname(__file__), "web")
"""The page's files."""


def serve(current: Current, directory: str) -> int:
    """Run the gateway until SIGTERM or SIGINT. Returns the exit status.

    Args:
        current: the configuration.
        directory: where the operator's defaults.json and mandatory.json may be.

    Raises:
        SetupError: the address cannot be bound, a TLS file cannot be read, the page is not built.
    """
    config = current.config
    settings = config.gateway
    host, port = address(settings.listen)
    if not os.path.isdir(os.path.join(WEB, "vendor")):
        raise SetupError("the page is not built; run: make setup")
    inherited = sd.Inherited()
    listener = inherited.tcp(settings.listen)
    inherited.finish()
    watchdog = sd.Watchdog()
    os.register_at_fork(before=lambda: _keep_to_itself(config.paths.redeem))
    try:
        serve_settings(
            Settings(
                host=host,
                port=port,
                source=config.paths.redeem,
                web=WEB,
                page_settings=directory,
                rules=_rules(settings),
                tls_cert=settings.tls_cert,
                tls_key=settings.tls_key,
                listener=listener,
                reload=lambda: _rules(current.config.gateway) if current.hang_up() else None,
                tell=sd.notify,
                tick=watchdog.ping,
            )
        )
    except CertificateError as error:
        raise SetupError(f"{error}; correct gateway.tls_cert and gateway.tls_key") from error
    except OSError as error:
        raise SetupError(
            f"cannot listen on {settings.listen}: {os_reason(error)}; "
            "end the program that uses that port, or choose another one as gateway.listen"
        ) from error
    return 0


def _rules(settings: Gateway) -> Rules:
    return Rules(
        public_url=settings.public_url,
        allowed_origins=settings.allowed_origins,
        connect_origins=settings.connect_origins,
        heartbeat=settings.heartbeat,
        handshake_timeout=settings.handshake_timeout,
        max_unauthenticated=settings.max_unauthenticated,
        trusted_proxies=networks(settings.trusted_proxies),
    )


def _keep_to_itself(redeem: str) -> None:
    """Let the child of one client, which may be broken into, neither trace nor read or write the
    memory of those of others, nor ours, from which all later ones come; a child has this from us.
    Where all is one user's there is nothing to keep from that user."""
    with contextlib.suppress(OSError):
        if os.stat(redeem).st_uid != os.geteuid():
            _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
