"""``python -m tests.fuzz [TARGET ...]``: feed targets with atheris, guided by their coverage.

Each target has a process of its own. What makes one raise, hang for 5 s or take over 512 MiB is
left in build/fuzz, and the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time

BUILD = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "build", "fuzz")
HANG = 5
"""Seconds that one input may take."""
MEMORY = 512
"""MiB that a target's process may have; at its start it has 100."""
INSTRUMENTED = ["serial_console", "websockify_tokens", "tomllib", "tests.fuzz.terminal_reference"]
INPUT_MAX = 70000
"""Bytes of an input: more than the longest line there is."""


def main() -> int:
    """Fuzz what the arguments name. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=-1, help="at most so many inputs for each")
    parser.add_argument("--seed", type=int, default=1, help="of all choices")
    parser.add_argument("--build", default=BUILD, help="where inputs are kept")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        _fuzz(args.targets[0], args)
    from .targets import TARGETS

    if unknown := set(args.targets) - TARGETS.keys():
        parser.error(f"no target {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    return max(_started(name, args) for name in args.targets or TARGETS)


def _started(name: str, args: argparse.Namespace) -> int:
    """Fuzz one target in a process of its own and print its figures in a line."""
    options = [f"--{one}={getattr(args, one)}" for one in ("seconds", "runs", "seed", "build")]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inside", *options, name],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    covered = re.findall(r"cov: (\d+) ft: (\d+)", said) or [("0", "0")]
    runs, memory = (
        (re.findall(rf"stat::{what}:\s+(\d+)", said) or ["?"])[0]
        for what in ("number_of_executed_units", "peak_rss_mb")
    )
    print(
        f"{name}: {runs} inputs in {time.monotonic() - began:.0f} s, "
        f"branches {covered[0][0]} -> {covered[-1][0]}, features {covered[0][1]} -> "
        f"{covered[-1][1]}, at most {memory} MiB: "
        f"{'FOUND' if done.returncode else 'nothing found'}",
        flush=True,
    )
    if done.returncode:
        print(said[-6000:], flush=True)
    return int(done.returncode != 0)


def _fuzz(name: str, args: argparse.Namespace) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from .mutate import mutated
        from .targets import TARGETS
    target = TARGETS[name]
    corpus = os.path.join(args.build, name)
    os.makedirs(corpus, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        with open(os.path.join(corpus, f"seed-{number}"), "wb") as file:
            file.write(seed)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        choose = random.Random(seed)
        if choose.random() < 0.3:
            return mutated(data, choose)[:most]
        return bytes(atheris.Mutate(data, most))

    options = [
        f"-max_total_time={args.seconds}", f"-runs={args.runs}", f"-seed={args.seed}",
        f"-timeout={HANG}", f"-rss_limit_mb={MEMORY}", f"-max_len={INPUT_MAX}",
        f"-artifact_prefix={args.build}/found-{name}-", "-print_final_stats=1", corpus,
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], target.check, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
