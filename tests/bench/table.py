"""The results as text: all goals in one table, then all medians by figure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .goals import Results, Verdict, verdicts
from .rounds import Samples

HEAD = ("figure", "ours", "peer", "ratio", "goal", "reached")


def goals(results: Results) -> str:
    """Return the goals' table, in Markdown."""
    return _markdown(HEAD, [_row(verdict) for verdict in verdicts(results)])


def figures(results: Results) -> str:
    """Return a table of all medians for each figure, in Markdown."""
    parts = []
    for figure, samples in results.items():
        metrics = list(dict.fromkeys(name for values in samples.values() for name in values))
        if len(samples) == 1:
            ((target, values),) = samples.items()
            rows = [(name, _number(median(values[name]))) for name in metrics]
            table = _markdown((figure, target), rows)
        else:
            table = _markdown((figure, *metrics), _medians(samples, metrics))
        parts.append(table)
    return "\n".join(parts)


def _medians(samples: Samples, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        (target, *(_number(median(values[name])) if name in values else "" for name in metrics))
        for target, values in samples.items()
    ]


def _row(verdict: Verdict) -> tuple[str, ...]:
    goal = verdict.goal
    if verdict.reached is None:
        reached = "not measured here"
    else:
        reached = "yes" if verdict.reached else "**no**"
    ours = "" if verdict.ours is None else f"{_number(verdict.ours)} {goal.unit}"
    peer = verdict.peer
    if verdict.theirs is not None:
        peer = f"{peer}: {_number(verdict.theirs)}"
    ratio = "" if verdict.ratio is None else f"{verdict.ratio:.2f}"
    return goal.what, ours, peer, ratio, goal.text, reached


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its columns padded so that it reads well as text too."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for line in [head, ["-" * width for width in widths], *rows]:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)
