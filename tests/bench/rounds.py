"""How it is measured: in rounds that interleave the targets, each with sessions of its own.

So whatever else the machine does meets all of them, and ratios are taken within a round.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Self, TypeVar

from . import peers
from .lab import Console, Lab
from .peers import Target
from .programs import Client, connected

Values = dict[str, float]
"""What one round measured of a target, by metric."""
Samples = dict[str, dict[str, list[float]]]
"""By target and metric, a value a round."""

T = TypeVar("T", bound=Target)


class Bench:
    """The lab and the targets, which start when they are first needed; a context manager."""

    def __init__(self, lab: Lab, rounds: int, kinds: Collection[type[Target]] = peers.ALL) -> None:
        """Measure so many rounds, and of these targets those that are installed."""
        missing = peers.missing()
        self.lab = lab
        self.rounds = rounds
        self._measured = {kind for kind in kinds if kind.name not in missing}
        self._targets: dict[type[Target], Target] = {}
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @functools.cached_property
    def _consoles(self) -> Iterator[tuple[Console, Console]]:
        """For each target a console of each of two guests."""
        count = len(peers.ALL)
        return zip(self.lab.synthetic(count), self.lab.synthetic(count), strict=True)

    def target(self, kind: type[T]) -> T:
        """Return a target with two synthetic consoles, which are served by different processes."""
        if kind not in self._targets:
            self._targets[kind] = kind(self.lab, next(self._consoles))
            self._closing.callback(self._targets[kind].close)
        found = self._targets[kind]
        assert isinstance(found, kind)
        return found

    def of_each(
        self, measure: Callable[[Target], Values], *kinds: type[Target]
    ) -> dict[str, Callable[[], Values]]:
        """Return how each of the targets is measured."""
        targets = [self.target(kind) for kind in kinds if kind in self._measured]
        return {target.name: functools.partial(measure, target) for target in targets}

    def interleaved(self, measures: Mapping[str, Callable[[], Values]]) -> Samples:
        """Measure all in each round, in each beginning with another one."""
        samples: Samples = {}
        names = list(measures)
        for number in range(self.rounds):
            first = number % len(names)
            for name in [*names[first:], *names[:first]]:
                add(samples, name, measures[name]())
        return samples


def add(samples: Samples, target: str, values: Values) -> None:
    """Add what a round measured of a target."""
    for metric, value in values.items():
        samples.setdefault(target, {}).setdefault(metric, []).append(value)


@contextlib.contextmanager
def session(target: Target, console: Console | None = None) -> Iterator[Client]:
    """Give a client with a session that echoes; leave when nothing is left of the session."""
    before = target.pids()
    with connected(target.address(console or target.consoles[0])) as client:
        yield client
    target.settle(before)
