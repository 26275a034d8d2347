"""REST against its own OpenAPI: schemathesis makes requests, right and wrong ones, and judges."""

import os
import subprocess

from tests import rig
from tests.stack import BIN

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "5")
"""Of each operation, beside some 40 at the edges of what its schema says."""
REAL = """
[[operations]]
include-path-regex = "guests/"
parameters = {{ "path.guest" = "{guest}" }}
"""


def start(stack, directory, config, *arguments):
    """Start schemathesis, with all its checks."""
    program = os.path.join(BIN, "schemathesis")
    if not os.path.exists(program):
        rig.missing("schemathesis")
    os.mkdir(directory)
    with open(os.path.join(directory, "schemathesis.toml"), "w") as file:
        file.write(config)
    return subprocess.Popen(
        [
            program, "run", f"http://127.0.0.1:{stack.api_port}/openapi.json",
            "--header", f"Authorization: Bearer {stack.key}", "--checks", "all",
            "--max-examples", EXAMPLES, "--generation-deterministic", "--continue-on-failure",
            "--no-color", *arguments,
        ],
        cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_rest_keeps_what_its_openapi_says(shared, shared_guest, tmp_path):
    name = shared_guest.name
    runs = (
        start(shared, tmp_path / "any", "", "--phases", "coverage,fuzzing"),
        start(shared, tmp_path / "real", REAL.format(guest=name), "--include-path-regex", "guests/",
              "--phases", "coverage,fuzzing"),
    )  # fmt: skip
    said = [run.communicate()[0] for run in runs]
    for run, report in zip(runs, said, strict=True):
        print(report[-3000:])
        assert run.returncode == 0, report
    log = shared.services["api"].logged()
    assert "Traceback" not in log
    assert "unexpected" not in log
    assert "/tokens: 201" in log, "no request was good"
    assert shared.rest("GET", f"/v1/guests/{name}")[0] == 200
