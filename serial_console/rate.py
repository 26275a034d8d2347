"""How often somebody may do something: token buckets, one a name, in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BURST = 2
"""Seconds' worth that may come at once: a page that opens several consoles asks in one go."""
NAMES = 1024
"""Buckets that are kept. One that is forgotten was not used for the longest, so most often it is
full, which a new one is as well."""


@dataclass
class _Bucket:
    level: float
    at: float
    told: bool = False


class Buckets:
    """Token buckets of one rate.

    Args:
        rate: times a second, in the long run; 0: no limit.
        clock: seconds on a monotonic clock.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str) -> float:
        """Take one from a bucket. Returns 0, or the seconds until there is one again."""
        if not self._rate:
            return 0.0
        now = self._clock()
        full = self._rate * BURST
        bucket = self._buckets.setdefault(name, _Bucket(full, now))
        self._buckets.move_to_end(name)
        if len(self._buckets) > NAMES:
            self._buckets.popitem(last=False)
        bucket.level = min(full, bucket.level + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.level < 1:
            return (1 - bucket.level) / self._rate
        bucket.level -= 1
        bucket.told = False
        return 0.0

    def first(self, name: str) -> bool:
        """Whether this is the first time to be asked since ``take`` last gave this name one."""
        bucket = self._buckets.get(name)
        if bucket is None or bucket.told:
            return False
        bucket.told = True
        return True
