"""What happened, by whom and to which console: the audit log, and the same in the daily log.

Each event is a line of the audit file (chain.py), and an entry of systemd's journal where that is
ours. ``docs/audit.md`` lists events and fields: they are stable, for programs. Tokens and
sessions go by their ids, which open nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from . import __version__, control, journal
from . import log as logs
from .chain import Chain, Head
from .channel import Peer
from .errors import CloseCode, ConsoleError, LimitReached
from .names import printable, shortened, shown
from .rate import Buckets
from .sessions import Session
from .tally import Tally
from .tokens import Grant

TEXT_MAX = 256
"""Characters of a value that others choose; what is longer is cut. JSON may need 12 bytes for one,
and a line has at most eight such values."""
REFUSALS = 5.0
"""Lines a second, in the long run, on refusals of one token, or of all unknown ones: who guesses
must not fill the disk. The next line tells how many were left out."""

_LEVELS: dict[int, int] = {
    CloseCode.RELAY_LOST: logging.ERROR,
    CloseCode.UNAVAILABLE: logging.WARNING,
}
"""Of the daily log's line on a session's end; every other end is its people's business."""
_WARNINGS = frozenset(
    {"token_refused", "issue_refused", "api_unauthorized", "api_forbidden", "api_rate_limited"}
)

log = logging.getLogger("supervisor")


class _Sink(logging.Handler):
    """Where the logger's records go: the file, then the journal with the line's number and hash."""

    def __init__(self, chain: Chain | None, entries: journal.Journal | None) -> None:
        super().__init__()
        self.chain = chain
        self._entries = entries

    def emit(self, record: logging.LogRecord) -> None:
        event = record.getMessage()
        fields: Mapping[str, Any] = record.__dict__["fields"]
        head = self.chain.append(event, fields) if self.chain else None
        if self._entries:
            self._entries.send(_entry(event, fields, head))


def _entry(event: str, fields: Mapping[str, Any], head: Head | None) -> dict[str, str]:
    said = " ".join(f"{name}={value}" for name, value in fields.items() if value not in ("", None))
    entry = {
        "MESSAGE": printable(f"{event} {said}"),
        "PRIORITY": "4" if event in _WARNINGS else "6",
        "SYSLOG_IDENTIFIER": "serial-console-audit",
        "SERIAL_CONSOLE_EVENT": event,
    }
    if head:
        fields = {**fields, "seq": head.seq, "hash": head.hash}
    return entry | {f"SERIAL_CONSOLE_{name.upper()}": str(fields[name]) for name in fields}


class Audit:
    """The supervisor's account of events.

    Args:
        path: the audit file (config ``log.audit``), ``""`` for none.
        tally: counts what happens.

    Raises:
        SetupError: the file cannot be written.
    """

    def __init__(self, path: str, tally: Tally) -> None:
        self._tally = tally
        self._stopping = False
        chain = Chain(path) if path else None
        self._sink = _Sink(chain, journal.Journal() if journal.ours() else None)
        self._logger = logging.getLogger("audit")
        self._logger.handlers[:] = [self._sink]
        self._logger.propagate = False
        self._logger.setLevel(logging.INFO)  # whatever log.level says
        self._refusals = Buckets(REFUSALS)
        self._left_out = 0

    @property
    def head(self) -> Head:
        """Where the file's chain ends."""
        return self._sink.chain.head if self._sink.chain else Head()

    def _event(self, name: str, **fields: Any) -> None:
        cut = {
            key: shortened(value, TEXT_MAX) if isinstance(value, str) else value
            for key, value in fields.items()
        }
        self._logger.info(name, extra={"fields": cut})

    # ---- the supervisor

    def started(self, where: str, sessions: int) -> None:
        """The supervisor serves."""
        log.info("serving %s, %d sessions adopted", where, sessions)
        self._event("supervisor_started", version=__version__)

    def stopping(self, signal: str) -> None:
        """It was told to end."""
        self._stopping = True
        log.info("%s: stopping", signal)
        self._event("supervisor_stopping", signal=signal)

    # ---- tokens

    def issued(self, grant: Grant, request: control.Issue, peer: Peer) -> None:
        """A token was issued."""
        self._tally.issued()
        log.info("token %s issued to %s for %s", grant.id, shown(grant.user), grant.shown())
        self._event(
            "token_issued",
            token=grant.id,
            **_console(grant),
            takeover=grant.takeover,
            resume=grant.resume,
            client_address=grant.client_address or "",
            expires_at=round(grant.expires_at, 3),
            **_by(request, peer),
        )

    def not_issued(self, request: control.Issue, error: ConsoleError, peer: Peer) -> None:
        """A token was asked for and refused. Not for which guest: what was asked for may be
        anything, and need not be a guest's name."""
        self._tally.not_issued(error)
        self._event(
            "issue_refused",
            user=request.user,
            mode=request.mode,
            code=error.code,
            **_by(request, peer),
        )

    def redeemed(self, session: Session, again: bool) -> None:
        """A token was used; ``again``: to come back to its own session."""
        self._tally.redeemed(again=again)
        self._event("token_redeemed", **_session(session), again=again)

    def refused(
        self,
        error: ConsoleError,
        client: str,
        about: Grant | control.SessionInfo | None,
        token: str,
        why: str = "",
    ) -> None:
        """A token was not good, or not now.

        Args:
            error: what its holder was told.
            client: the address.
            about: what it stands for, where it stands for anything.
            token: the token's id, where it has one.
            why: more than its holder was told.
        """
        self._tally.refused(error)
        if about is not None:
            what = f"{shown(about.guest)} {about.console} ({about.mode})"
            log.log(
                _severity(error),
                "refused %s for %s: %s",
                shown(about.user) or "-",
                what,
                error,
                extra=logs.fields(
                    event="session_refused",
                    **_console(about),
                    client=client,
                    code=int(error.close),
                    error=error.code,
                    reason=str(error),
                ),
            )
        if self._refusals.take(token):
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        self._event(
            "token_refused",
            token=token,
            **(_console(about) if about else {}),
            client=client,
            code=error.code,
            why=why or str(error),
            left_out=left_out,
        )

    def revoked(self, request: control.Revoke, session: Session | None, peer: Peer) -> None:
        """A token was revoked, and with it the session that it opened."""
        opened = session.info.id if session else ""
        self._event("token_revoked", token=request.id, session=opened, **_by(request, peer))

    def key_revoked(
        self, request: control.RevokeKey, tokens: int, sessions: int, peer: Peer
    ) -> None:
        """An API key was revoked, and with it the unused tokens that it had issued."""
        log.info("key %s revoked: %d tokens, %d sessions", request.key, tokens, sessions)
        self._event(
            "key_revoked",
            key=request.key,
            tokens=tokens,
            sessions=sessions,
            by=request.by,
            uid=peer.uid,
        )

    # ---- sessions

    def opened(self, session: Session, again: bool) -> None:
        """A session's client has connected, or connected again."""
        info = session.info
        event = "session_resumed" if again else "session_opened"
        seconds = self._tally.opened(session, again=again)
        log.info(
            "session %s %s: %s %s (%s), user %s, client %s",
            info.id,
            "resumed" if again else "opened",
            shown(info.guest),
            info.console,
            info.mode,
            shown(info.user) or "-",
            shown(info.client) or "-",
            extra=logs.fields(
                event=event,
                session=info.id,
                **_console(info),
                client=info.client,
                **({} if again else {"setup_seconds": round(seconds, 3)}),
            ),
        )
        self._event(event, **_session(session))

    def adopted(self, session: Session) -> None:
        """A session of the supervisor before goes on."""
        self._event("session_adopted", **_session(session))

    def closed(
        self, session: Session, code: int, reason: str, taker: Session | None = None
    ) -> None:
        """A session has ended. A lost relay is an error, and libvirt or the host a warning.

        Args:
            session: which.
            code, reason: as its client was told.
            taker: the session that has taken it over.
        """
        info, figures = session.info, session.figures
        self._tally.ended(code)
        level = _LEVELS.get(code, logging.INFO)
        if self._stopping and level == logging.WARNING:
            level = logging.INFO  # that is what was asked for
        seconds = round(max(0.0, time.time() - info.opened_at), 3)
        count = {
            "bytes_in": figures.bytes_in,
            "bytes_out": figures.bytes_out,
            "skipped": figures.skipped,
            "seconds": seconds,
        }
        log.log(
            level,
            "session %s closed: %d %s; %d bytes in, %d out, %d skipped",
            session.info.id,
            code,
            reason,
            figures.bytes_in,
            figures.bytes_out,
            figures.skipped,
            extra=logs.fields(
                event="session_closed",
                session=info.id,
                **_console(info),
                client=info.client,
                code=int(code),
                reason=reason,
                **count,
            ),
        )
        if taker is not None:
            by = {"by_session": taker.info.id, "by_user": taker.info.user}
            self._event("session_taken_over", **_session(session), **by)
        self._event(
            "session_closed",
            **_session(session),
            code=code,
            reason=reason,
            **count,
        )

    def close_asked(self, request: control.Close, sessions: int, peer: Peer) -> None:
        """Somebody closes a session, or all of them."""
        self._event(
            "close_asked", session=request.id or "", sessions=sessions, **_by(request, peer)
        )

    # ---- what others saw

    def told(self, message: control.Audit, peer: Peer) -> None:
        """The API or the command line tells of what only it knows."""
        self._event(
            message.event,
            key=message.key,
            by=message.by,
            source=message.source,
            method=message.method,
            route=message.route,
            status=message.status,
            left_out=message.left_out,
            uid=peer.uid,
        )


def _severity(error: ConsoleError) -> int:
    """Return how bad it is for the operator that somebody was refused for this."""
    if isinstance(error, LimitReached):
        return logging.WARNING
    return _LEVELS.get(error.close, logging.INFO)


def _console(one: Grant | control.SessionInfo) -> dict[str, Any]:
    return {
        "guest": one.guest,
        "uuid": one.uuid,
        "console": one.console,
        "mode": one.mode,
        "user": one.user,
    }


def _session(session: Session) -> dict[str, Any]:
    info = session.info
    ids = {"session": info.id, "token": info.token_id, "key": info.key}
    return {**ids, **_console(info), "client": info.client}


def _by(
    request: control.Issue | control.Revoke | control.Close, peer: Peer
) -> dict[str, str | int]:
    """Return who asked: as it says, and as the kernel says of the process that asked for them."""
    return {"key": request.key, "by": request.by, "uid": peer.uid}
