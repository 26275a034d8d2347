"""Everything that can be refused or can fail, each with its face to every kind of user.

::

    ConsoleError                    code                  HTTP  close  exit
    ├── BadRequest                  bad_request            400   4400   1
    │   ├── UnknownOp               unknown_op             400   4400   1
    │   └── BadVersion              bad_version            400   4400   1
    ├── BadToken                    bad_token              401   4401   1
    ├── Unauthorized                unauthorized           401   4401   1
    ├── Forbidden                   forbidden              403   4401   1
    ├── NoSuchGuest                 no_such_guest          404   4404   1
    ├── NoSuchConsole               no_such_console        404   4404   1
    │   └── UnsupportedConsole      unsupported_console    409   4404   1
    ├── NoSuchSession               no_such_session        404   4404   1
    ├── NoSuchToken                 no_such_token          404   4404   1
    ├── InUse                       in_use                 409   4409   1
    ├── LimitReached                limit_reached          429   4429   1
    ├── RateLimited                 rate_limited           429   4429   1
    ├── Unavailable                 unavailable            503   4503   1
    │   ├── SupervisorUnavailable   supervisor_unavailable 503   4503   1
    │   └── LibvirtUnavailable      libvirt_unavailable    503   4503   1
    │       └── LibvirtDenied       libvirt_denied         503   4503   1
    ├── RelayLost                   relay_lost             502   4412   1
    ├── Closed                      closed                 410   4411   1
    ├── AuditBroken                 audit_broken           500   4503   1
    ├── ConfigError                 config_error           500   4503   1
    └── SetupError                  setup_error            500   4503   1

``code`` is stable and for programs; ``http`` is the status of the REST problem; ``close`` is the
WebSocket close code; ``exit`` is the command's exit status. The message says what was wrong, why
and what to do, in words fit to show to the person at the terminal; it never holds a secret.
OSError and libvirtError are translated into these once, at the edge where they come up.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class CloseCode(IntEnum):
    """How a session ended, as a WebSocket close code."""

    ENDED = 1000
    GATEWAY_RESTARTING = 1012
    NO_TOKEN = 4400
    BAD_TOKEN = 4401
    GONE = 4404
    IDLE = 4408
    IN_USE = 4409
    TAKEN_OVER = 4410
    CLOSED = 4411
    RELAY_LOST = 4412
    TOO_SLOW = 4413
    LIMIT = 4429
    UNAVAILABLE = 4503


class ConsoleError(Exception):
    """An expected failure: one sentence for the user, never a traceback."""

    code: ClassVar[str] = "error"
    http: ClassVar[int] = 500
    close: ClassVar[CloseCode] = CloseCode.UNAVAILABLE
    exit: ClassVar[int] = 1


class BadRequest(ConsoleError):
    """The message, field or argument is not of the form it must have."""

    code = "bad_request"
    http = 400
    close = CloseCode.NO_TOKEN


class UnknownOp(BadRequest):
    """The message names an operation that this socket does not have."""

    code = "unknown_op"


class BadVersion(BadRequest):
    """The message is of a protocol version that this program does not speak."""

    code = "bad_version"


class BadToken(ConsoleError):
    """The token is unknown, used, revoked or expired: one answer for all."""

    code = "bad_token"
    http = 401
    close = CloseCode.BAD_TOKEN


class Unauthorized(ConsoleError):
    """No API key, or one that is unknown or revoked."""

    code = "unauthorized"
    http = 401
    close = CloseCode.BAD_TOKEN


class Forbidden(ConsoleError):
    """The key or the peer is known but may not do this."""

    code = "forbidden"
    http = 403
    close = CloseCode.BAD_TOKEN


class NoSuchGuest(ConsoleError):
    """No guest of that name or UUID (any more)."""

    code = "no_such_guest"
    http = 404
    close = CloseCode.GONE


class NoSuchConsole(ConsoleError):
    """The guest has no console, or none of that alias."""

    code = "no_such_console"
    http = 404
    close = CloseCode.GONE


class UnsupportedConsole(NoSuchConsole):
    """The console exists, but one of its type cannot be opened."""

    code = "unsupported_console"
    http = 409


class NoSuchSession(ConsoleError):
    """No open session of that id."""

    code = "no_such_session"
    http = 404
    close = CloseCode.GONE


class NoSuchToken(ConsoleError):
    """No token of that id that is still of use."""

    code = "no_such_token"
    http = 404
    close = CloseCode.GONE


class InUse(ConsoleError):
    """Another client or another program holds the console."""

    code = "in_use"
    http = 409
    close = CloseCode.IN_USE


class LimitReached(ConsoleError):
    """A configured limit on sessions or tokens is reached."""

    code = "limit_reached"
    http = 429
    close = CloseCode.LIMIT


class RateLimited(ConsoleError):
    """Too many requests of one caller; ``retry_after``: seconds until the next may succeed."""

    code = "rate_limited"
    http = 429
    close = CloseCode.LIMIT

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(ConsoleError):
    """Something that is needed does not answer now."""

    code = "unavailable"
    http = 503
    close = CloseCode.UNAVAILABLE


class SupervisorUnavailable(Unavailable):
    """The supervisor cannot be reached."""

    code = "supervisor_unavailable"


class LibvirtUnavailable(Unavailable):
    """libvirt cannot be reached, or does not answer."""

    code = "libvirt_unavailable"


class LibvirtDenied(LibvirtUnavailable):
    """libvirt or polkit does not let our user do what it must; also while polkit is away."""

    code = "libvirt_denied"


class RelayLost(ConsoleError):
    """The relay died or does not answer."""

    code = "relay_lost"
    http = 502
    close = CloseCode.RELAY_LOST


class Closed(ConsoleError):
    """The operator closed the session before its client was attached."""

    code = "closed"
    http = 410
    close = CloseCode.CLOSED


class AuditBroken(ConsoleError):
    """An audit log is not as it was written."""

    code = "audit_broken"


class ConfigError(ConsoleError):
    """The configuration is wrong."""

    code = "config_error"


class SetupError(ConsoleError):
    """The machine does not let us: a directory, a socket, a port, a missing program."""

    code = "setup_error"


def _tree(cls: type[ConsoleError]) -> dict[str, type[ConsoleError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found |= _tree(sub)
    return found


_BY_CODE = _tree(ConsoleError)
CODES = frozenset(_BY_CODE)
"""Every ``code``."""


def from_wire(code: str, message: str) -> ConsoleError:
    """Make the error that another process reported.

    Args:
        code: its ``code``; one that this version does not know becomes a plain ConsoleError.
        message: its sentence.
    """
    return _BY_CODE.get(code, ConsoleError)(message)


def for_the_person(error: ConsoleError) -> ConsoleError:
    """Return a relay's failure in words for the person at the terminal: no paths, no URIs, and
    nothing that only the operator can do. The log has it in full."""
    if isinstance(error, NoSuchGuest):
        return NoSuchGuest("This guest no longer exists on this host.")
    if isinstance(error, LibvirtDenied):
        return LibvirtDenied(
            "libvirt on the host does not allow this console; its operator finds why in the log."
        )
    if isinstance(error, LibvirtUnavailable):
        return LibvirtUnavailable("libvirt on the host does not answer; try again in a while.")
    if isinstance(error, SetupError):
        return Unavailable(
            "The host cannot open this console now; its operator finds why in the log."
        )
    return error


def os_reason(error: OSError) -> str:
    """Say in a few words why the kernel refused, without the errno number or a path."""
    return error.strerror or str(error) or type(error).__name__
