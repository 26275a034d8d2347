"""The types in the page's JSDoc, checked by TypeScript's compiler."""

from __future__ import annotations

import subprocess

from tests import node


def test_the_page_s_types_are_right() -> None:
    tsc = node.module("typescript/bin/tsc")
    done = subprocess.run(
        [node.node(), tsc, "--project", "jsconfig.json", "--pretty", "false"],
        cwd=node.WEB,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
