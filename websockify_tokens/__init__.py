"""websockify's side of the serial console: the token plugin, and a gateway made of its parts.

The plugin works with an unmodified websockify::

    websockify --token-plugin websockify_tokens.ConsoleTokens \\
        --token-source /run/serial-console/redeem.sock 127.0.0.1:6083
"""

from __future__ import annotations

from websockify.token_plugins import BasePlugin
from websockify.websockifyserver import WebSockifyServer

from .client import Redemption, RefusedError, __version__

__all__ = ["ConsoleTokens", "__version__"]


class ConsoleTokens(BasePlugin):  # type: ignore[misc]
    """Token plugin that redeems one-time tokens at the supervisor's redeem.sock.

    ``--token-source`` is the path of that socket.
    """

    def lookup(self, token: str) -> tuple[str, str]:
        """Redeem a token. websockify calls this in the process that then connects.

        Returns:
            ``("unix_socket", path)``.

        Raises:
            WebSockifyServer.EClose: it was refused. websockify logs the sentence; returning None
                instead would have it log the token.
        """
        try:
            path, back = Redemption(self.source, token).answer()
        except RefusedError as refused:
            raise WebSockifyServer.EClose(refused.reason) from None
        back.close()
        return "unix_socket", path
