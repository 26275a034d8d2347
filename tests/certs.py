"""Certificates that openssl makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from serial_console.demo import host
from serial_console.errors import SetupError

from . import rig


def make(directory: Path, name: str = "test", *, since: str = "", phrase: str = "") -> list[str]:
    """Make a certificate for 127.0.0.1 that is good for a day; return its path and the key's.

    Args:
        directory: where the files go.
        name: the certificate's common name, and the files'.
        since: when its day began, as faketime takes it; by default now.
        phrase: encrypts the key.
    """
    paths = [str(directory / f"{name}.{what}") for what in ("pem", "key")]
    try:
        command = [host.program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048"]
        if since:
            command = [host.program("faketime", "faketime"), since, *command]
    except SetupError as error:
        rig.missing(str(error))
    command += ["-passout", f"pass:{phrase}"] if phrase else ["-nodes"]
    command += ["-subj", f"/CN={name}", "-days", "1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-out", paths[0], "-keyout", paths[1]]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return paths
