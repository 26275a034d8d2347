"""What this process uses. A relay measures itself: it may, it costs the supervisor nothing, and the
API, another user's process, sees no other process at all (ProtectProc= in its unit)."""

from __future__ import annotations

import contextlib
import time

AGE = 10.0
"""Seconds for which a measurement of memory is good: the kernel takes 0.4 ms for one."""


class Memory:
    """Measures the share of the memory (PSS): pages that forks share count in part, so that the
    shares of all relays add up to what they use together, which their RSS does not.

    Not psutil's: that writes to 100 KiB of pages that a relay otherwise shares with the supervisor.
    """

    def __init__(self) -> None:
        self._at = -AGE
        self._share = 0

    def share(self, now: float) -> int:
        """Return it in bytes, at most AGE old; 0: the kernel does not tell.

        Args:
            now: the time, on a monotonic clock.
        """
        if now - self._at >= AGE:
            self._at = now
            with contextlib.suppress(OSError), open("/proc/self/smaps_rollup", "rb") as file:
                self._share = next(
                    (int(line.split()[1]) << 10 for line in file if line.startswith(b"Pss:")), 0
                )
        return self._share


def cpu() -> float:
    """Return the seconds of CPU, of all threads, since the process began."""
    return round(time.process_time(), 3)
