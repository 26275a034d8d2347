"""Measures the goals of docs/performance.md on the real stack, against the peers installed here.

Prints a table of the goals. All figures together also renew docs/performance/: the table, the
plots, and the samples as JSON; some of them write into build/bench/ instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
import traceback

import psutil

from . import measures, namespace, peers, programs, table
from .lab import Lab
from .rounds import Bench, Samples

DOCUMENTS = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "performance")


def main() -> int:
    """Measure, print, write. Returns the exit status."""
    options = _options()
    namespace.enter("tests.bench")
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(1))  # end everything in order
    for name, lacking in peers.missing().items():
        _say(f"not measured: {name}, for want of {lacking}")
    wanted = options.figures or list(measures.FIGURES)
    results = _measure(wanted, options.rounds, options.quick)
    whole = list(results) == list(measures.FIGURES) and not options.quick
    directory = DOCUMENTS if whole else programs.BUILD
    os.makedirs(directory, exist_ok=True)
    with open(options.json or os.path.join(directory, "results.json"), "w", encoding="utf-8") as to:
        json.dump(
            {"machine": _machine(), "rounds": options.rounds, "samples": results}, to, indent=1
        )
    with open(os.path.join(directory, "table.md"), "w", encoding="utf-8") as to:
        to.write(f"# All figures\n\n{table.goals(results)}\n{table.figures(results)}")
    if not options.quick:
        from . import plots  # takes a second, and is not there where only the tests are

        plots.draw(results, directory)
    print(table.goals(results))
    return 0 if list(results) == wanted else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "figures",
        nargs="*",
        metavar="FIGURE",
        help=f"of {', '.join(measures.FIGURES)}; by default all, some nine minutes",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="where to write the samples")
    quick = "whether it works: one round, virsh as the only peer, no plots"
    parser.add_argument("--quick", action="store_true", help=quick)
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    if unknown := set(options.figures) - set(measures.FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    return options


def _measure(figures: list[str], rounds: int, quick: bool) -> dict[str, Samples]:
    programs.build()
    results = {}
    kinds = (peers.Ours, peers.Virsh) if quick else peers.ALL
    with Lab() as lab, Bench(lab, rounds, kinds) as bench:
        for name in figures:
            began = time.monotonic()
            try:
                results[name] = measures.FIGURES[name](bench)
            except Exception:  # noqa: BLE001 - the others are still worth their minutes
                traceback.print_exc()
            else:
                _say(f"{name}: {time.monotonic() - began:.0f} s")
    return results


def _machine() -> dict[str, str]:
    """Return what the figures depend on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = psutil.virtual_memory().total / (1 << 30)
    return {
        "cpu": f"{os.cpu_count()} of {models[0] if models else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
