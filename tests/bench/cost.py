"""What processes cost: CPU and memory, as the kernel counts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping

from tests.stack import pss

Groups = Mapping[str, Iterable[int]]
"""Process ids by role, such as ``relay`` and ``gateway``."""


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process's threads.

    By the scheduler's nanoseconds: on a UART's 0.2 MB/s the 10 ms of /proc/PID/stat are too coarse.
    """
    total = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
    return total / 1e9


def cpu_of(groups: Groups) -> dict[str, dict[int, float]]:
    """Return the CPU seconds of each process by role."""
    return {role: {pid: cpu(pid) for pid in pids} for role, pids in groups.items()}


def cpu_since(before: Mapping[str, Mapping[int, float]], groups: Groups) -> dict[str, float]:
    """Return the CPU seconds of each role since ``before``."""
    return {
        role: sum(spent - before.get(role, {}).get(pid, 0.0) for pid, spent in processes.items())
        for role, processes in cpu_of(groups).items()
    }


def memory(groups: Groups) -> dict[str, float]:
    """Return the MiB of each role: the share of the memory (PSS), so that a sum counts it once."""
    return {role: sum(map(_pss, pids)) / (1 << 20) for role, pids in groups.items()}


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError, AssertionError):  # it has just ended
        return pss(pid)
    return 0
