"""Private reverse proxies on loopback, in front of our services, as docs/ has them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import certs, rig
from .stack import READY, STOP, listens

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"
"""Where tools/setup unpacks them: their packages would start one on the machine's own ports."""

NGINX = """\
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
{site}
}}
"""

# What Debian's apache2.conf and its modules' files say beside the site, the user left out.
APACHE = """\
ServerRoot {directory}
PidFile pid
Mutex file:{directory} default
ErrorLog error.log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so
LoadModule reqtimeout_module {modules}/mod_reqtimeout.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
RequestReadTimeout header=20-40,minrate=500 body=20,minrate=500
LogFormat "%h \\"%r\\" %>s" short
CustomLog access.log short
StartServers 1
Listen 127.0.0.1:{port}
{site}
"""

HAPROXY = """\
global
    log stdout format raw local0
defaults
    log global
    option httplog
{site}
"""


@dataclasses.dataclass(frozen=True)
class Proxy:
    """One kind of them.

    Attributes:
        document: its file in docs/.
        program: its path below the directory of BUILD.
        configuration: what there is beside the document.
        command: its arguments; ``{directory}`` is its own.
        log: where its requests are listed.
    """

    document: str
    program: str
    configuration: str
    command: tuple[str, ...]
    log: str


PROXIES: Mapping[str, Proxy] = {
    "nginx": Proxy(
        "nginx.conf",
        "usr/sbin/nginx",
        NGINX,
        ("-p", "{directory}", "-c", "configuration", "-e", "error.log"),
        "access.log",
    ),
    "apache": Proxy(
        "apache.conf",
        "usr/sbin/apache2",
        APACHE,
        ("-D", "FOREGROUND", "-d", "{directory}", "-f", "configuration"),
        "access.log",
    ),
    "haproxy": Proxy(
        "haproxy.cfg",
        "usr/sbin/haproxy",
        HAPROXY,
        ("-f", "{directory}/configuration"),
        "output",
    ),
}


@contextlib.contextmanager
def serving(
    name: str, directory: Path, port: int, backends: Mapping[int, int], seconds: int = 60
) -> Iterator[Path]:
    """Serve the documented site until the end of the context.

    Args:
        name: of PROXIES.
        directory: for what it reads and writes.
        port: on 127.0.0.1, instead of 443.
        backends: our ports by the documented ones.
        seconds: its time-outs, instead of 60.

    Yields:
        The list of its requests.
    """
    proxy = PROXIES[name]
    unpacked = BUILD / name
    path: str | Path | None = unpacked / proxy.program
    if not (unpacked / proxy.program).exists():
        path = shutil.which(os.path.basename(proxy.program), path=f"/usr/sbin:{os.defpath}")
    if path is None:
        rig.missing(f"there is no {name} here; run 'make setup'")
    certificate, key = certs.make(directory, name)
    both = directory / "both.pem"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    site = (ROOT / "docs" / proxy.document).read_text("utf-8")
    changes = {
        "/etc/ssl/host.example.pem": certificate,
        "/etc/ssl/host.example.key": key,
        "/etc/haproxy/host.example.pem": str(both),
        "listen 443": f"listen 127.0.0.1:{port}",
        "*:443": f"127.0.0.1:{port}",
        "bind :443": f"bind 127.0.0.1:{port}",
        "60s": f"{seconds}s",
    } | {f"127.0.0.1:{theirs}": f"127.0.0.1:{ours}" for theirs, ours in backends.items()}
    for documented, ours in changes.items():
        site = site.replace(documented, ours)
    modules = unpacked / "usr/lib/apache2/modules"
    (directory / "configuration").write_text(
        proxy.configuration.format(
            site=site,
            directory=directory,
            port=port,
            modules=modules if modules.exists() else "/usr/lib/apache2/modules",
        )
    )
    libraries = ":".join(str(found) for found in (unpacked / "usr/lib").glob("*-linux-gnu"))
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            [path, *(one.format(directory=directory) for one in proxy.command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {"LD_LIBRARY_PATH": libraries},
        )
    try:
        assert rig.eventually(lambda: listens(port) or process.poll() is not None, READY)
        assert process.poll() is None, (directory / "output").read_text()
        yield directory / proxy.log
    finally:
        process.terminate()
        process.wait(STOP)
