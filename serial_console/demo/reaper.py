"""Runs a daemon and reaps its orphans at once.

libvirt waits for a guest's process to be gone when it stops the guest. That process is an orphan,
and pid 1 can be slow to reap it; in a container it may never do so. Run as a program of its own,
with a JSON list of user, group and groups, and a command; it prints the command's process id.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Run until no child is left, neither the daemon nor an orphan."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    user, group, groups = json.loads(sys.argv[1])
    daemon = subprocess.Popen(
        sys.argv[2:], stdout=sys.stderr, user=user, group=group, extra_groups=groups
    )
    os.write(1, b"%d\n" % daemon.pid)
    os.close(1)
    try:
        while True:
            os.wait()
    except ChildProcessError:
        os._exit(0)  # the interpreter would complain of a daemon that it did not wait for


if __name__ == "__main__":
    main()
