"""make bench: that it measures, on the real stack; what comes out is for docs/performance.md."""

import json
import subprocess
import sys

import pytest

from tests import rig
from tests.bench import namespace, table


@pytest.mark.slow
def test_a_round_against_virsh_gives_what_the_table_needs(tmp_path):
    if subprocess.run([*namespace.command(), "true"], capture_output=True).returncode != 0:
        rig.missing("a mount namespace of our own")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--json", str(report), "rtt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    samples = json.loads(report.read_text("utf-8"))["samples"]
    for target in ("ours", "virsh"):
        (p50,), (p99,) = samples["rtt"][target]["p50_us"], samples["rtt"][target]["p99_us"]
        assert 10 < p50 <= p99 < 1e6
    assert done.stdout == table.goals(samples) + "\n"
    assert "ttyd, by virsh" in done.stdout
