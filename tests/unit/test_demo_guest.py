"""The demo's parts that need no libvirt."""

import os
import subprocess
from xml.etree import ElementTree

import pytest

from serial_console.demo import guests, host
from serial_console.demo.libvirtd import PrivateLibvirtd
from serial_console.errors import SetupError


def test_cpio_reads_the_archive(tmp_path):
    archive = guests.cpio(
        [("d", 0o040755, b""), ("d/odd", 0o100640, b"12345"), ("e", 0o100644, b"")]
    )
    subprocess.run(
        ["busybox", "cpio", "-id"],
        input=archive,
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "d/odd").read_bytes() == b"12345"
    assert (tmp_path / "d/odd").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "e").read_bytes() == b""


def test_hostile_name_stays_a_name():
    name = "a</name>&'\"\u20ac"
    xml = guests.domain_xml(name, memory=1024, kvm=False, boot="", devices=[])
    assert ElementTree.fromstring(xml).findtext("name") == name


def test_missing_program_names_its_package():
    with pytest.raises(SetupError, match="package no-such-package"):
        host.program("no-such-program", "no-such-package")


def test_guests_never_run_as_root():
    account = host.guest_account()
    assert account.user != 0
    assert (account.user is None) == (os.geteuid() != 0)


def test_directory_too_long_for_sockets(tmp_path):
    with pytest.raises(SetupError, match="too long"):
        PrivateLibvirtd(str(tmp_path / ("x" * 60)))


def test_kernel_is_for_amd64_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(SetupError, match="aarch64"):
        guests.fetch_kernel()
    assert list(tmp_path.iterdir()) == []


def test_apt_failure_leaves_nothing(tmp_path, monkeypatch):
    """No package lists, and no network to fetch them: one sentence, and no half of a kernel."""
    config = tmp_path / "apt.conf"
    config.write_text(
        f'Dir::State::lists "{tmp_path}/lists";\nDir::Etc::sourcelist "/dev/null";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SetupError, match="linux-image-cloud-amd64"):
        guests.fetch_kernel()
    assert os.listdir(tmp_path / "cache" / "serial-console") == []
