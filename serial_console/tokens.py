"""Tokens: one-time bearer secrets for one user, one console, one mode. Kept only as sha256."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from .control import Mode
from .errors import BadToken, LimitReached, NoSuchToken
from .names import shown

BITS = 256
"""Random bits of a token (DESIGN.md)."""
ENDS = 1000
"""How many tokens that are of no use any more are remembered by their hash, to tell why."""
BAD = "This token is unknown, used, revoked or expired; ask for a new one where you got this from."
"""The one answer for all of these."""


@dataclass(frozen=True)
class Grant:
    """What a token stands for. Which console it opens is fixed when it is issued.

    Attributes:
        id: public name of the token; tells nothing of the secret.
        guest: the guest's name then, for people; ``uuid`` is what counts.
        alias: the console's alias, or None when it is the guest's first.
        console: the console's alias in any case.
        notices, replay, escape: how the session is to be; see config ``[session]``.
        client_address: the only address that may redeem it, or None.
        resume: seconds that its session waits for its client to come back.
        key: the API key that it was issued for, "" where none was needed.
        expires_at: Unix time in seconds, for people; the monotonic clock counts.
    """

    id: str
    guest: str
    uuid: str
    alias: str | None
    console: str
    mode: Mode
    user: str
    takeover: bool
    notices: bool
    replay: int
    escape: str
    client_address: str | None
    resume: int
    expires_at: float
    key: str = ""

    def shown(self) -> str:
        """Return which console it opens and how, for the log."""
        return f"{shown(self.guest)} {self.console} ({self.mode})"


class MemoryStore:
    """Tokens in the supervisor's memory: they die with it.

    Args:
        limit: tokens alive at once.
        clock: seconds on a monotonic clock, so that a jump of the wall clock revives nothing.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._grants: dict[bytes, tuple[float, Grant]] = {}
        self._reserved: set[str] = set()
        self._ends: OrderedDict[bytes, tuple[str, str]] = OrderedDict()

    def issue(self, grant: Grant, ttl: float) -> str:
        """Keep a grant for ``ttl`` seconds and return its secret.

        Raises:
            LimitReached: too many tokens are alive.
        """
        self._expire()
        if len(self._grants) >= self.limit:
            raise LimitReached(
                f"{self.limit} tokens wait to be used, as many as may; try again in a while"
            )
        token = secrets.token_urlsafe(BITS // 8)
        self._grants[digest(token)] = (self._clock() + ttl, grant)
        return token

    def reserve(self, token: str) -> Grant:
        """Begin to redeem: nobody else can, until ``consume`` or ``release``.

        Raises:
            BadToken: unknown, used, revoked, expired or being redeemed: one answer for all.
        """
        found = self._grants.get(digest(token))
        if found is None or found[0] <= self._clock() or found[1].id in self._reserved:
            raise BadToken(BAD)
        self._reserved.add(found[1].id)
        return found[1]

    def release(self, grant: Grant) -> None:
        """Give a reserved token back: it was refused for a reason that may pass."""
        self._reserved.discard(grant.id)

    def consume(self, grant: Grant) -> None:
        """End the life of a reserved token; it counts that it was alive when it was reserved.

        Raises:
            BadToken: it was revoked meanwhile.
        """
        self._reserved.discard(grant.id)
        key = self._find(grant.id)
        if key is None:
            raise BadToken(BAD)
        self._drop(key, "used")

    def revoke(self, token_id: str) -> None:
        """Make a token useless.

        Raises:
            NoSuchToken: there is none of that id (any more).
        """
        key = self._find(token_id)
        if key is None:
            raise NoSuchToken("there is no unused token of that id; it may be used or expired")
        self._drop(key, "revoked")

    def key_of(self, token_id: str) -> str | None:
        """Return the API key that a token was issued for, None where there is none of that id."""
        key = self._find(token_id)
        return None if key is None else self._grants[key][1].key

    def revoke_of(self, key: str) -> int:
        """Make all tokens useless that were issued for an API key; return how many."""
        found = [digest for digest, (_, grant) in self._grants.items() if grant.key == key]
        for one in found:
            self._drop(one, "revoked")
        return len(found)

    def fate(self, token: str) -> tuple[str, str]:
        """Return a refused token's id and why it is of no use; for the audit log, not its holder.

        ``""`` and ``unknown`` where there never was one, or too long ago.
        """
        key = digest(token)
        if key in self._grants:
            end, grant = self._grants[key]
            return grant.id, "expired" if end <= self._clock() else "being_redeemed"
        return self._ends.get(key, ("", "unknown"))

    def _drop(self, key: bytes, why: str) -> None:
        self._ends[key] = self._grants.pop(key)[1].id, why
        if len(self._ends) > ENDS:
            self._ends.popitem(last=False)

    def _find(self, token_id: str) -> bytes | None:
        return next((key for key, (_, one) in self._grants.items() if one.id == token_id), None)

    def _expire(self) -> None:
        now = self._clock()
        for key, (end, grant) in list(self._grants.items()):
            if end <= now and grant.id not in self._reserved:
                self._drop(key, "expired")


def digest(token: str) -> bytes:
    """Return what is kept of a token: its sha256."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
