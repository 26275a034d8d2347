"""Fixtures: a private libvirtd, guests in it, and a check that no test leaves anything behind."""

from __future__ import annotations

import contextlib
import pathlib
import signal
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from hypothesis import settings

from serial_console.demo import host
from serial_console.demo.libvirtd import Guest, PrivateLibvirtd
from serial_console.errors import SetupError

from . import rig
from .stack import Stack

# The same examples in every run; searching for new ones is what "make fuzz" is for.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.load_profile("fixed")

# nohup ignores these, and a shell for its background jobs; what they run inherits that.
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

DAEMONS = pytest.StashKey[list[Any]]()
"""What outlives a test: ``owns`` of each tells of a pid whether it is one of its processes."""


@pytest.fixture(scope="session")
def libvirtd(pytestconfig: pytest.Config) -> Iterator[PrivateLibvirtd]:
    """A private libvirtd for the whole run; a test that kills or freezes it must bring it back."""
    with host.short_directory("sc-libvirt-") as directory:
        try:
            daemon = PrivateLibvirtd(f"{directory}/d")
            daemon.__enter__()
        except SetupError as error:
            rig.missing(str(error))
        pytestconfig.stash.setdefault(DAEMONS, []).append(daemon)
        try:
            yield daemon
        finally:
            daemon.close()


@pytest.fixture
def make_guest(libvirtd: PrivateLibvirtd) -> Iterator[rig.GuestFactory]:
    """Make guests for this test: see rig.GuestFactory.__call__."""
    factory = rig.GuestFactory(libvirtd)
    yield factory
    factory.close()


@pytest.fixture
def echo_guest(make_guest: rig.GuestFactory) -> Guest:
    """A running echo guest that echoes."""
    return make_guest("echo")


@pytest.fixture(scope="module")
def linux_guest(libvirtd: PrivateLibvirtd) -> Iterator[Guest]:
    """A Linux guest for a module, waiting at its login prompt, which Enter shows again."""
    factory = rig.GuestFactory(libvirtd)
    try:
        yield factory("linux")
    finally:
        factory.close()


@pytest.fixture
def run_dir() -> Iterator[str]:
    """A short directory for runtime state only: at the test's end it must hold no file."""
    with host.short_directory("sc-run-") as directory:
        yield directory
        rig.eventually(lambda: not rig.files_below(directory), seconds=2.0)
        if left := rig.files_below(directory):
            pytest.fail(f"the test left behind: {', '.join(left)}", pytrace=False)


@pytest.fixture(autouse=True)
def nothing_left_behind(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail a test that leaves a process or an open fd behind."""

    def ours(pid: int) -> bool:
        return any(daemon.owns(pid) for daemon in pytestconfig.stash.get(DAEMONS, []))

    leaks = rig.Leaks(ours)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(rig.TEST_MARK, leaks.mark)
        yield
    if left := leaks.found():
        pytest.fail("the test left behind: " + "; ".join(left), pytrace=False)


class MakeStack(Protocol):
    """See make_stack."""

    def __call__(self, *services: str, **sections: dict[str, Any]) -> Stack: ...


@pytest.fixture
def make_stack(
    libvirtd: PrivateLibvirtd, run_dir: str, tmp_path: pathlib.Path
) -> Iterator[MakeStack]:
    """Start services of a configuration of their own: ``make_stack("supervisor", session={...})``.

    They end with the test, and those of ours with status 0 unless the test ended them.
    """
    with contextlib.ExitStack() as stacks:

        def make(*services: str, **sections: dict[str, Any]) -> Stack:
            made = Stack(libvirtd.uri, run_dir, str(tmp_path), **sections)
            stacks.callback(made.close)
            return made.start(*services)

        yield make


@pytest.fixture
def stack(make_stack: MakeStack) -> Stack:
    """Supervisor and gateway of this test alone, with the default configuration."""
    return make_stack("supervisor", "gateway")


@pytest.fixture
def stock(make_stack: MakeStack) -> Stack:
    """A supervisor, and an unmodified websockify with our plugin."""
    return make_stack("supervisor", "stock")


@pytest.fixture(params=["gateway", "stock"])
def via(request: pytest.FixtureRequest) -> str:
    """Each of the two: our gateway, an unmodified websockify."""
    return str(request.param)


@pytest.fixture
def both(make_stack: MakeStack, via: str) -> Stack:
    """A supervisor and the one of ``via``."""
    return make_stack("supervisor", via)


@pytest.fixture(scope="session")
def services(
    libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Supervisor, gateway and api for the whole run."""
    with host.short_directory("sc-run-") as directory:
        logs = str(tmp_path_factory.mktemp("shared"))
        one = Stack(libvirtd.uri, directory, logs, api={"rate": 0})  # tests ask more than managers
        try:
            yield one.start("supervisor", "gateway", "api")
        finally:
            one.close()
        assert rig.files_below(directory) == []


@pytest.fixture(scope="module")
def shared(services: Stack) -> Stack:
    """``services`` for a module whose tests leave them as they are, and no session behind."""
    # Another module may have restarted libvirtd just now.
    assert rig.eventually(lambda: services.ask("health")["libvirt"] == "ok", seconds=30)
    services.wait_free()
    return services


@pytest.fixture(scope="module")
def shared_stock(shared: Stack) -> Stack:
    """The same, and an unmodified websockify beside our gateway."""
    return shared if "stock" in shared.services else shared.start("stock")


@pytest.fixture
def either(shared_stock: Stack, via: str) -> Stack:
    """The same, once for each of ``via``."""
    return shared_stock


@pytest.fixture(scope="session")
def shared_guest(libvirtd: PrivateLibvirtd) -> Iterator[Guest]:
    """An echo guest for all tests that leave it echoing."""
    factory = rig.GuestFactory(libvirtd)
    try:
        yield factory("echo")
    finally:
        factory.close()
