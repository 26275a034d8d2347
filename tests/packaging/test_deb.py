"""The Debian package and the RPM: what they hold; tests/newcomer installs them."""

import fnmatch
import hashlib
import pathlib
import re
import runpy
import shutil
import subprocess

import pytest

from serial_console import __version__
from serial_console.demo import host
from serial_console.errors import SetupError
from tests import packages, rig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIBRARIES = "/usr/lib/serial-console/"


def program(name, package):
    try:
        return host.program(name, package)
    except SetupError as error:
        rig.missing(str(error))


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deb():
    program("dh", "debhelper")
    return packages.built("deb")


@pytest.fixture(scope="module")
def rpm():
    program("rpmbuild", "rpm")
    return packages.built("rpm")


@pytest.fixture(scope="module")
def unpacked(deb, tmp_path_factory):
    directory = tmp_path_factory.mktemp("unpacked")
    output("dpkg-deb", "--raw-extract", deb, str(directory))
    return directory


def files(directory):
    """Return the paths of what is no directory, as they are once installed."""
    return {
        f"/{path.relative_to(directory)}"
        for path in pathlib.Path(directory).rglob("*")
        if path.is_symlink() or path.is_file()
    }


def lintian(deb, directory, *options):
    """Return what it says, which leaves files of its own in a directory."""
    command = [program("lintian", "lintian"), "--allow-root", "--fail-on=none", *options, deb]
    return output("env", f"TMPDIR={directory}", *command)


def test_lintian_says_nothing_that_is_not_overridden(deb, tmp_path):
    assert lintian(deb, tmp_path) == ""


def test_each_override_has_its_use(deb, tmp_path):
    """lintian tells of an unused one at a level that is not shown by default."""
    said = lintian(deb, tmp_path, "--display-info")
    assert [line for line in said.splitlines() if "unused-override" in line] == []


def test_what_it_needs_is_debian_12_s(unpacked):
    control = (unpacked / "DEBIAN/control").read_text("utf-8")
    assert f"\nVersion: {__version__}\n" in control
    depends = re.search(r"^Depends: (.*)$", control, re.MULTILINE)[1]
    assert "python3 (>= 3.11), python3 (<< 3.12)" in depends
    assert "libvirt0 (>= 9.0.0)" in depends
    for name in re.findall(r"[a-z][\w.+-]+(?= \(|,|$)", depends):
        assert output("apt-cache", "policy", name), f"Debian 12 has no {name}"


def test_it_names_no_directory_of_the_build(unpacked):
    """Neither where it was staged, nor who built it; nothing in it is found by an absolute path."""
    for needle in (str(packages.ROOT), "debian/serial-console/usr"):
        found = subprocess.run(
            ["grep", "-rlF", needle, str(unpacked)], capture_output=True, text=True
        )
        assert found.stdout == ""
    first = (unpacked / "usr/lib/serial-console/bin/serial-console").read_text("utf-8")
    assert first.startswith("#!/usr/lib/serial-console/bin/python")
    assert not list(unpacked.rglob("pip*/__init__.py"))


def test_files_are_root_s_and_nobody_else_may_write_them(deb):
    for line in output("dpkg-deb", "--contents", deb).splitlines():
        mode, owner = line.split()[:2]
        assert owner == "root/root", line
        assert mode[0] == "l" or (mode[5], mode[8]) == ("-", "-"), line
        assert "s" not in mode.lower(), line


def test_the_configuration_is_the_operator_s(unpacked):
    listed = (unpacked / "DEBIAN/conffiles").read_text().splitlines()
    assert sorted(listed) == ["/etc/logrotate.d/serial-console", "/etc/serial-console/config.toml"]


def test_the_documents_are_where_the_program_sends_people(unpacked):
    there = unpacked / "usr/share/doc/serial-console"
    readable = [there / "README.md", *there.glob("docs/*.md")]
    for path in readable:
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!\w+:|#)([^)#]+)", text):
            target = (path.parent / link).resolve()
            assert target.exists() or not target.is_relative_to(there / "docs"), (path.name, link)
    for source in (packages.ROOT / "serial_console").rglob("*.py"):
        for name in re.findall(r"docs/[\w.-]+\.md", source.read_text("utf-8")):
            assert (there / name).is_file(), name


def paragraphs(unpacked):
    """Return what ``copyright`` says of files: their patterns, licence, and where its text is."""
    text = (unpacked / "usr/share/doc/serial-console/copyright").read_text("utf-8")
    pattern = r"^Files: (.*?)^Copyright: \S.*?^License: ([^\n]+)\n((?: [^\n]*\n)+)"
    for patterns, licence, where in re.findall(pattern, text, re.MULTILINE | re.DOTALL):
        yield patterns.split(), licence, re.findall(r"^ (/\S+?)\.?$", where, re.MULTILINE)


def test_its_copyright_names_the_licence_of_everything_and_its_text(unpacked):
    patterns = []
    for several, _, texts in paragraphs(unpacked):
        patterns += several
        assert texts
        for one in texts:
            assert one.startswith("/usr/share/common-licenses/") or (unpacked / one[1:]).is_file()
    assert patterns[0] == "*"  # ours, unless a later one matches
    (site,) = unpacked.glob("usr/lib/serial-console/lib/python3*/site-packages")
    ours = {"serial_console", "websockify_tokens"}
    for path in (one.relative_to(site) for one in site.rglob("*") if one.is_file()):
        if "__pycache__" not in path.parts[:1] and path.parts[0].split("-")[0] not in ours:
            name = f"/site-packages/{path}"
            assert any(fnmatch.fnmatchcase(name, one) for one in patterns[1:]), name
    assert "*/serial_console/web/vendor/*" in patterns


def test_the_rpm_names_the_same_licences(unpacked, rpm):
    of_debian = {
        one for _, licence, _ in paragraphs(unpacked) for one in re.split(" and | or ", licence)
    }
    tag = output("rpm", "--query", "--package", "--queryformat", "%{license}", rpm)
    debian_name = runpy.run_path(str(packages.ROOT / "packaging/copyright.py"))["debian_name"]
    assert {debian_name(one) for one in tag.split(" AND ")} == of_debian


def test_the_rpm_has_the_same_files(unpacked, rpm):
    ours = {one for one in files(unpacked) if not one.startswith("/DEBIAN/")}
    theirs = set(output("rpm", "--query", "--package", "--list", rpm).split())

    def named(paths):
        """Debian compresses, keeps its own papers, and has a directory for units of its own."""
        return {
            re.sub(r"\.gz$", "", one).replace("/lib/systemd/system", "/usr/lib/systemd/system", 1)
            if not one.startswith("/usr/lib/systemd/system")
            else one
            for one in paths
            if not re.search(r"/(changelog|copyright)(\.gz)?$|/lintian/|^/usr/share/licenses/", one)
        }

    directories = {one for one in theirs if any(two.startswith(f"{one}/") for two in theirs)}
    assert named(ours) == named(theirs - directories)


def test_the_rpm_needs_the_python_that_it_was_built_for(rpm):
    needed = output("rpm", "--query", "--package", "--requires", rpm).splitlines()
    assert "python(abi) = 3.11" in needed
    assert "libvirt.so.0()(64bit)" in needed
    bundled = [one for one in needed if "openblas" in one or "gfortran" in one]
    assert bundled == []
    provided = output("rpm", "--query", "--package", "--provides", rpm).split()
    assert not [one for one in provided if ".so" in one]


def test_it_is_the_same_when_it_is_built_again(deb, tmp_path):
    kept = tmp_path / "first.deb"
    shutil.copy(deb, kept)
    again = packages.built("deb", again=True)
    one, two = (hashlib.sha256(pathlib.Path(path).read_bytes()).digest() for path in (kept, again))
    assert one == two
