"""The Debian package and the RPM on a newcomer's host: installed, upgraded and removed as
docs/install.md says."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests import documents, packages
from tests.cleanroot import CleanRoot
from tests.machine import write

KEPT = "/etc/serial-console|/var/log/serial-console"
"""What a removal leaves: configuration, keys, audit log."""

DEBIAN_FOR_RPM = """
Name: debian
Version: 12
Release: 1
Summary: What Debian has installed, in the words of rpm
License: None
BuildArch: noarch
Provides: /bin/sh
Provides: rtld(GNU_HASH)
Provides: systemd
%{lua: for line in io.lines("/root/provided") do print("Provides: " .. line .. "\\n") end}
%description
%files
"""
"""The one FAKE: no distribution with rpm is to be had here, and dnf knows nothing of what dpkg has
installed. What libraries are there it says of the real ones, as rpm itself finds it."""


class Deb:
    """The Debian package.

    Args:
        path: of the .deb.
    """

    name = "Debian package"
    left = f"{KEPT}|/etc/logrotate.d/|/etc/systemd/system/|/var/lib/systemd/deb-systemd-helper-"
    """Paths that a removal leaves; the last two are Debian's own, of a unit that was enabled."""
    new_configuration = ""
    """Where an upgrade puts a newer ``config.toml`` than the one that the operator has changed."""
    removed_configuration = "/etc/serial-console/config.toml"
    """Where a removal leaves that one."""

    def __init__(self, path: str) -> None:
        self._path = path

    def prepare(self, root: CleanRoot) -> None:
        """Bring the package to a host."""
        root.copy(self._path, f"/root/{os.path.basename(self._path)}")

    def install(self, root: CleanRoot) -> None:
        """Install it, and have it started."""
        root.type(documents.block("docs/install.md", "deb"), online=True)

    def upgrade(self, root: CleanRoot) -> None:
        """Install a newer one."""
        root.type(f"""
            dpkg-deb -R {os.path.basename(self._path)} next
            sed -i 's/^Version: .*/&+1/' next/DEBIAN/control
            dpkg-deb -Znone --root-owner-group -b next next.deb
            apt-get install --yes ./next.deb
        """)
        assert root.type("dpkg-query -W -f '${Version}' serial-console").endswith("+1")

    def remove(self, root: CleanRoot) -> None:
        """Remove it."""
        root.type(documents.block("docs/install.md", "remove"))

    def purge(self, root: CleanRoot) -> None:
        """Remove what a removal has left."""
        root.type(documents.block("docs/install.md", "purge"))


class Rpm:
    """The RPM, by Debian's dnf and rpm; arguments and attributes are those of ``Deb``."""

    name = "RPM"
    left = KEPT
    new_configuration = "/etc/serial-console/config.toml.rpmnew"
    removed_configuration = "/etc/serial-console/config.toml.rpmsave"

    def __init__(self, path: str) -> None:
        self._path = path

    def prepare(self, root: CleanRoot) -> None:
        """Bring the package to a host, and make of that one with dnf."""
        root.type(
            "apt-get update; apt-get install --yes --no-install-recommends dnf rpm", online=True
        )
        root.copy(self._path, f"/root/{os.path.basename(self._path)}")
        write(root.path("/root/debian.spec"), DEBIAN_FOR_RPM)
        root.type("""
            find -L /lib/x86_64-linux-gnu -maxdepth 1 -name "*.so*" -type f |
                /usr/lib/rpm/elfdeps --provides | sort -u >provided
            python3 -c 'import sys; print("python(abi) = %d.%d" % sys.version_info[:2])' >>provided
            rpmbuild -bb --define "_topdir /root/debian" debian.spec
            dnf install --assumeyes debian/RPMS/*/*.rpm
        """)

    def install(self, root: CleanRoot) -> None:
        """Install it, which starts nothing, and start it."""
        root.type(documents.block("docs/install.md", "rpm"))
        assert root.run("systemctl", "is-active", "serial-console.target").returncode == 3
        root.type(documents.block("docs/install.md", "rpm-start"))

    def upgrade(self, root: CleanRoot) -> None:
        """Install a newer one, of the same files but for ``config.toml``, by the same spec."""
        spec = (packages.ROOT / "packaging/rpm/serial-console.spec").read_text("utf-8")
        # Unpacked instead of staged anew, which takes a minute and asks PyPI.
        for old, new in (
            ("Release:        1", "Release:        2"),
            (
                "packaging/stage %{buildroot} %{unitdir}",
                f"tar -x -f /root/{os.path.basename(self._path)}.tgz -C %{{buildroot}}\n"
                "rm -r %{buildroot}/usr/share/licenses  # which %license puts there\n"
                "echo '# next' >>%{buildroot}/etc/serial-console/config.toml",
            ),
        ):
            assert spec.count(old) == 1, old
            spec = spec.replace(old, new)
        write(root.path("/root/next.spec"), spec)
        (source,) = (packages.ROOT / "build/rpm/SOURCES").iterdir()
        root.copy(str(source), f"/root/{source.name}")
        root.type(f"""
            rpm2archive {os.path.basename(self._path)}
            rpmbuild -bb --nodeps --define "_topdir /root/next" --define "_sourcedir /root" \\
                --define "_binary_payload w1.gzdio" next.spec
            dnf install --assumeyes next/RPMS/*/*.rpm
        """)
        assert root.type("rpm --query --queryformat '%{release}' serial-console") == "2"

    def remove(self, root: CleanRoot) -> None:
        """Remove it."""
        root.type(documents.block("docs/install.md", "rpm-remove"))

    def purge(self, root: CleanRoot) -> None:
        """Remove what a removal has left."""
        root.type(documents.block("docs/install.md", "rpm-purge"))


Package = Deb | Rpm
KINDS: dict[str, Callable[[str], Package]] = {"deb": Deb, "rpm": Rpm}
