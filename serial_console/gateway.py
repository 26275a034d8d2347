"""The gateway's process entry: our configuration in websockify_tokens' words.

websockify_tokens knows nothing of this package, so that it can be installed without it.
"""

from __future__ import annotations

import os

from websockify_tokens.server import Settings
from websockify_tokens.server import serve as serve_settings

from .config import Config, address
from .errors import SetupError, os_reason

WEB = os.path.join(os.path.dirname(__file__), "web")
"""The page's files."""


def serve(config: Config) -> int:
    """Run the gateway until SIGTERM or SIGINT. Returns the exit status.

    Raises:
        SetupError: the address cannot be bound, a TLS file cannot be read, the page is not built.
    """
    settings = config.gateway
    host, port = address(settings.listen)
    for path in filter(None, (settings.tls_cert, settings.tls_key)):
        if not os.access(path, os.R_OK):
            raise SetupError(f"cannot read {path}; correct gateway.tls_cert and gateway.tls_key")
    if not os.path.isdir(os.path.join(WEB, "vendor")):
        raise SetupError("the page is not built; run: make setup")
    try:
        serve_settings(
            Settings(
                host=host,
                port=port,
                source=config.paths.redeem,
                web=WEB,
                public_url=settings.public_url,
                tls_cert=settings.tls_cert,
                tls_key=settings.tls_key,
                allowed_origins=settings.allowed_origins,
                connect_origins=settings.connect_origins,
                heartbeat=settings.heartbeat,
            )
        )
    except OSError as error:
        raise SetupError(
            f"cannot listen on {settings.listen}: {os_reason(error)}; "
            "end the program that uses that port, or choose another one as gateway.listen"
        ) from error
    return 0
