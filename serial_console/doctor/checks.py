"""Which checks there are, in the order in which their findings are shown.

What a check needs is imported in its own process: a package that is missing fails that check alone.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from collections.abc import Iterator

from .. import config
from ..config import Config
from .examine import Check
from .finding import Finding


def checks(path: str | None) -> dict[str, Check]:
    """Return all checks by name.

    Args:
        path: the configuration, as for config.load(); what is wrong in it counts as unset.
    """
    case = _Case(path, config.salvage(path))
    return {
        "config": case.file,
        "packages": case.packages,
        "users": case.users,
        "clock": case.clock,
        "libvirt": case.libvirt,
        "virtlogd": case.virtlogd,
        "max_client_requests": case.client_requests,
        "locks": case.locks,
        "directories": case.directories,
        "sockets": case.sockets,
        "supervisor": case.supervisor,
        "gateway port": case.gateway,
        "api port": case.api,
        "versions": case.versions,
        "origin": case.origin,
        "page settings": case.page,
        "tls": case.tls,
        "api keys": case.api_keys,
        "audit log": case.audit_log,
    }


class _Case:
    """This host: each method gives a check what it is to look at."""

    def __init__(self, path: str | None, found: Config) -> None:
        self._path = path
        self._config = found

    def file(self) -> Iterator[Finding]:
        from . import host, settings

        return settings.file(self._path, [user for user in host.USERS if self._user(user)])

    def origin(self) -> Iterator[Finding]:
        from . import settings

        return settings.origin(self._config.gateway)

    def page(self) -> Iterator[Finding]:
        from . import settings

        directory = config.directory(self._path)
        return settings.page(directory, self._user("serial-console-gateway"))

    def packages(self) -> Iterator[Finding]:
        from . import host

        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        return host.packages(os.path.join(here, "web", "vendor"))

    def users(self) -> Iterator[Finding]:
        from . import host

        system = os.geteuid() == 0 or config.found(self._path) == config.SYSTEM_FILE
        return host.users(host.memberships() if system else {}, system)

    def clock(self) -> Iterator[Finding]:
        from . import host

        return host.clock(time.time(), *host.synchronised())

    def libvirt(self) -> Iterator[Finding]:
        from . import libvirt

        user, own = self._supervisors_user()
        return libvirt.check(self._config.libvirt.uri, user, own)

    def virtlogd(self) -> Iterator[Finding]:
        from . import libvirt

        return libvirt.virtlogd(self._config.libvirt.uri)

    def client_requests(self) -> Iterator[Finding]:
        from . import libvirt

        return libvirt.client_requests(self._config.libvirt.uri)

    def locks(self) -> Iterator[Finding]:
        from . import libvirt

        return libvirt.locks()

    def directories(self) -> Iterator[Finding]:
        from . import files

        return files.directories(self._config.paths, self._user("serial-console"))

    def sockets(self) -> Iterator[Finding]:
        from . import files

        paths = self._config.paths
        wanted = {paths.redeem: True, paths.admin: True, paths.api_socket: False}
        return files.sockets(wanted)

    def supervisor(self) -> Iterator[Finding]:
        from . import services

        starts = services.activated("serial-console-admin.socket")
        return services.supervisor(self._config, self._runs("supervisor"), starts)

    def gateway(self) -> Iterator[Finding]:
        from . import services

        starts = services.activated("serial-console-gateway.socket")
        return services.gateway(self._config, self._runs("gateway"), starts)

    def api(self) -> Iterator[Finding]:
        from . import host, services

        if host.without_api():  # told of by packages()
            return iter(())
        starts = services.activated("serial-console-api.socket")
        return services.api(self._config, self._runs("api"), starts)

    def versions(self) -> Iterator[Finding]:
        from . import services

        return services.versions(services.running(self._path), services.installed_at())

    def tls(self) -> Iterator[Finding]:
        from . import tls

        return tls.check(self._config.gateway, time.time(), self._user("serial-console-gateway"))

    def api_keys(self) -> Iterator[Finding]:
        from . import files

        return files.api_keys(self._config, self._user("serial-console-api"))

    def audit_log(self) -> Iterator[Finding]:
        from . import files

        return files.audit_log(self._config.log.audit)

    def _user(self, name: str) -> str:
        """Return a service's user where we can look with their rights, else ""."""
        if os.geteuid() == 0 and config.found(self._path) == config.SYSTEM_FILE:
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name).pw_name
        return ""

    def _runs(self, service: str) -> bool:
        from . import services

        return any(one.service == service for one in services.running(self._path))

    def _supervisors_user(self) -> tuple[str, bool]:
        """Return whom to become to ask libvirt with the supervisor's rights, who is the owner of
        its directory, "" for nobody; and whether they are the supervisor's then."""
        try:
            owner = os.stat(self._config.paths.control).st_uid
            if os.geteuid() != 0 or owner == 0:
                return "", owner == os.geteuid()
            return pwd.getpwuid(owner).pw_name, True
        except (OSError, KeyError):
            return "", True
