"""A private nginx on loopback, in front of our services."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import rig
from .stack import READY, STOP, listens

UNPACKED = Path(__file__).parent.parent / "build" / "nginx" / "usr" / "sbin" / "nginx"
"""Where tools/setup put it: its package would start one on the machine's port 80."""
ADDRESS = "127.0.0.9"
"""What it connects from, so that it is not taken for its clients."""

CONFIGURATION = """
daemon off;
master_process off;
pid pid;
error_log error.log;
events {{}}
http {{
    access_log access.log;
    client_body_temp_path body;
    fastcgi_temp_path fastcgi;
    proxy_temp_path proxy;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    proxy_bind {address};
    server {{
        listen 127.0.0.1:{port};
{locations}
    }}
}}
"""


@contextlib.contextmanager
def serving(directory: Path, port: int, locations: str) -> Iterator[None]:
    """Serve until the end of the context.

    Args:
        directory: for ``access.log`` and what else it writes.
        port: on 127.0.0.1.
        locations: what its server block holds.
    """
    path = str(UNPACKED) if UNPACKED.exists() else shutil.which("nginx", path=os.defpath)
    if path is None:
        rig.missing("there is no nginx here; run 'make setup'")
    configuration = CONFIGURATION.format(address=ADDRESS, port=port, locations=locations)
    (directory / "nginx.conf").write_text(configuration)
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            [path, "-p", directory, "-c", "nginx.conf", "-e", "error.log"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        assert rig.eventually(lambda: listens(port), READY), (directory / "output").read_text()
        yield
    finally:
        process.terminate()
        process.wait(STOP)
