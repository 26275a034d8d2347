"""What the packages are made of is in step; tests/packaging builds them."""

from __future__ import annotations

import configparser
import os
import pathlib
import re
import subprocess

import pytest
from packaging.requirements import Requirement

from serial_console import __version__
from serial_console.doctor import host
from tests import documents

ROOT = pathlib.Path(__file__).parents[2]
UNITS = sorted(path.name for path in (ROOT / "systemd").glob("serial-console*"))
SPEC = (ROOT / "packaging/rpm/serial-console.spec").read_text("utf-8")
NOT_SERVED = {".npmrc", "build.mjs", "jsconfig.json", "package-lock.json", "package.json"}
"""Of the page's directory: what builds it."""


def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


def tracked(directory: str) -> list[pathlib.PurePath]:
    listed = subprocess.run(
        ["git", "ls-files", directory], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [pathlib.PurePath(line) for line in listed.stdout.splitlines()]


def test_the_version_is_written_once_and_followed() -> None:
    assert metadata()["metadata"]["version"] == "attr: serial_console.__version__"
    assert re.findall(r"^Version: +(.*)$", SPEC, re.MULTILINE) == [__version__]
    for name, file in (
        ("deb", f"./serial-console_{__version__}_amd64.deb"),
        ("rpm", f"./serial-console-{__version__}-1.x86_64.rpm"),
        ("pip", f"./serial_console-{__version__}-py3-none-any.whl"),
    ):
        assert file in documents.block("docs/install.md", name)


@pytest.mark.parametrize("top", ["serial_console", "websockify_tokens"])
def test_the_wheel_has_every_package(top: str) -> None:
    there = {".".join(path.parts[:-1]) for path in tracked(top) if path.name == "__init__.py"}
    named = metadata()["options"]["packages"].split()
    assert there == {one for one in named if one.split(".")[0] == top}


def test_the_wheel_has_every_file_that_is_no_module() -> None:
    patterns = metadata()["options.package_data"]["serial_console"].split()
    for path in tracked("serial_console"):
        inner = path.relative_to("serial_console")
        if path.suffix != ".py" and path.name not in NOT_SERVED:
            # As setuptools takes them: a pattern's star does not go into directories.
            fits = [one for one in patterns if one.count("/") == len(inner.parts) - 1]
            assert any(inner.match(one) for one in fits), f"setup.cfg names no {inner}"


def test_the_lock_file_has_what_is_required_and_fits_it() -> None:
    lines = (ROOT / "packaging/requirements.txt").read_text("utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", lines, re.MULTILINE))
    parser = metadata()
    wanted = parser["options"]["install_requires"] + parser["options.extras_require"]["api"]
    for line in wanted.split():
        requirement = Requirement(line)
        assert locked[requirement.name] in requirement.specifier, line


def test_units_start_the_program_that_the_packages_install() -> None:
    stage = (ROOT / "packaging/stage").read_text("utf-8")
    assert '"$root/usr/bin/serial-console"' in stage
    for name in UNITS:
        text = (ROOT / "systemd" / name).read_text("utf-8")
        for program in re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE):
            assert program == "/usr/bin/serial-console", name


def test_the_rpm_has_every_unit_and_account_file() -> None:
    listed = SPEC.partition("%files\n")[2].splitlines()
    units = [line.removeprefix("%{unitdir}/") for line in listed if "unitdir" in line]
    assert sorted(units) == UNITS
    for kind in ("sysusers.d", "tmpfiles.d"):
        files = {f"/usr/lib/{kind}/{one}" for one in os.listdir(ROOT / "systemd" / kind)}
        assert files == {line for line in listed if f"/{kind}/" in line}


def scriptlet(name: str) -> str:
    """Return one of the specification's scripts."""
    found = re.search(rf"^%{name}\n(.*?)^(?:%\w|# )", SPEC, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def debian(name: str) -> str:
    return (ROOT / f"packaging/debian/serial-console.{name}").read_text("utf-8")


@pytest.mark.parametrize("script", [debian("prerm"), scriptlet("preun")], ids=["deb", "rpm"])
def test_a_removal_stops_every_unit(script: str) -> None:
    """The target's stop ends the sessions; a socket that went on would start a service again."""
    named = set(re.findall(r"serial-console[\w-]*\.(?:target|service|socket)", script))
    assert named == {*UNITS} - {"serial-console-sessions.service"}  # stops with the target


@pytest.mark.parametrize("script", [debian("postinst"), scriptlet("postun")], ids=["deb", "rpm"])
def test_an_upgrade_restarts_the_services_and_not_what_ends_sessions(script: str) -> None:
    # One by one and in this order, as docs/versions.md says.
    assert re.findall(r"serial-console-(\w+)\.service", script) == ["supervisor", "gateway", "api"]
    assert re.search(r"restart \"?\$service", script)
    assert "restart serial-console.target" not in script


def test_the_audit_log_is_rotated_as_documented() -> None:
    file = (ROOT / "packaging/logrotate").read_text("utf-8")
    assert file == documents.block("docs/audit.md", "logrotate")


@pytest.mark.parametrize("script", [debian("postinst"), scriptlet("post")], ids=["deb", "rpm"])
def test_users_are_made_before_directories(script: str) -> None:
    for kind in ("sysusers", "tmpfiles"):
        for name in os.listdir(ROOT / f"systemd/{kind}.d"):
            line = next(one for one in script.splitlines() if f"systemd-{kind}" in one)
            assert name in line
    assert script.index("systemd-sysusers") < script.index("systemd-tmpfiles")


def test_a_purge_takes_every_account_and_doctor_knows_them() -> None:
    made = (ROOT / "systemd/sysusers.d/serial-console.conf").read_text("utf-8")
    users, groups = (set(re.findall(rf"^{one} (\S+)", made, re.MULTILINE)) for one in "ug")
    assert users == set(host.USERS)
    script = debian("postrm")
    for kind, names in (("user", users), ("group", groups)):
        found = re.search(rf"for {kind} in (.*); do", script)
        assert found
        assert set(found[1].split()) == names
