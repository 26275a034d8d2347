"""The sessions' figures (bytes, idle time, state): only their relays know them, and are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import control
from .loop import Loop, Timer
from .sessions import Relay

PATIENCE = 0.5
"""Seconds that relays have to report their figures; a slower one's last ones are shown."""
BATCH = 20
"""Relays that are asked at once; with a thousand, others are served in between."""


@dataclass
class _Asked:
    missing: set[str]
    then: Callable[[], None]
    timer: Timer | None = None


class Figures:
    """Brings figures up to date.

    Args:
        loop: the supervisor's.
        relays: all that there are, by id.
    """

    def __init__(self, loop: Loop, relays: Mapping[str, Relay]) -> None:
        self._loop = loop
        self._relays = relays
        self._open: list[_Asked] = []

    def bring(self, then: Callable[[], None]) -> None:
        """Go on when every relay has told its figures, or after a while without."""
        missing = {one.id for one in self._relays.values() if one.ready and one.sessions}
        if not missing:
            then()
            return
        asked = _Asked(missing, then)
        self._open.append(asked)
        self._ask(asked, sorted(missing))

    def _ask(self, asked: _Asked, ids: list[str]) -> None:
        """Ask these relays, a few at a time: those that wake to answer take the CPU from us."""
        for id_ in ids[:BATCH]:
            if id_ in self._relays:
                self._relays[id_].child.send(control.encode(control.Query()))
        rest = ids[BATCH:]
        if asked in self._open:  # else each has answered, or has ended
            asked.timer = self._loop.after(
                0.0 if rest else PATIENCE,
                (lambda: self._ask(asked, rest)) if rest else (lambda: self._enough(asked)),
            )

    def reported(self, which: Relay) -> None:
        """Take note that a relay has told its figures, or never will."""
        for asked in list(self._open):
            asked.missing.discard(which.id)
            if not asked.missing:
                self._enough(asked)

    def _enough(self, asked: _Asked) -> None:
        self._open.remove(asked)
        if asked.timer is not None:
            asked.timer.cancel()
        asked.then()
