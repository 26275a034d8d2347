"""The command line against a FAKE supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from serial_console import channel, cli, control, errors, keys
from serial_console.attach import login_name

from .. import fakes


class Command:
    """Runs commands in this process, with a configuration and a FAKE supervisor."""

    def __init__(
        self, path: str, supervisor: fakes.FakeSupervisor, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.path = path
        self.supervisor = supervisor
        self._capture = capture

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Return stdout; assert the exit status and that stderr fits it."""
        got = cli.main(["--config", self.path, *arguments])
        out, self.err = self._capture.readouterr()
        assert got == status, self.err
        if status:
            assert self.err.startswith("serial-console: ")
            assert self.err.count("\n") == 1
        return out


@pytest.fixture
def command(run_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    path = tmp_path / "config.toml"
    path.write_text(fakes.config_text(run_dir, str(tmp_path / "api-keys")))
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.guests = [fakes.guest("web-1"), fakes.guest("db"), fakes.guest("a\x1b[2Jb")]
        supervisor.sessions = [fakes.session("s-1", supervisor.guests[0])]
        yield Command(str(path), supervisor, capsys)


def test_token_prints_the_token_alone(command: Command) -> None:
    (token,) = command("token", "web-1").splitlines()
    assert token in command.supervisor.tokens
    assert command.supervisor.last(control.Issue) == control.Issue(
        guest="web-1", user=login_name(), by=login_name()
    )


def test_token_options(command: Command) -> None:
    options = "token web-1 --user bob --mode ro --console serial0 --ttl 5 --takeover"
    command(*options.split())
    assert command.supervisor.last(control.Issue) == control.Issue(
        guest="web-1",
        user="bob",
        mode="ro",
        console="serial0",
        ttl=5,
        takeover=True,
        by=login_name(),
    )


def test_token_as_url_and_json(command: Command) -> None:
    url = command("token", "web-1", "--url")
    assert url.startswith("http://127.0.0.1:6083/serial.html#token=")
    answer = json.loads(command("token", "web-1", "--json"))
    assert answer["guest"] == "web-1"
    assert answer["expires_at"].endswith("Z")


def test_guests_as_a_table_that_cannot_harm_the_terminal(command: Command) -> None:
    lines = command("guests").splitlines()
    assert lines[0].split() == ["GUEST", "STATE", "CONSOLES", "SESSIONS", "UUID"]
    assert len({line.index("running") for line in lines[1:]}) == 1
    assert "serial0 (serial1: tcp)" in lines[2]
    assert not any("\x1b" in line for line in lines)


def test_listings_as_json_are_arrays_of_rest_objects(command: Command) -> None:
    guests = json.loads(command("guests", "--json"))
    assert [one["name"] for one in guests] == ["a\x1b[2Jb", "db", "web-1"]
    (session,) = json.loads(command("sessions", "--json"))
    assert session["opened_at"] == "2020-09-13T12:26:40.000Z"
    command.supervisor.sessions = []
    assert json.loads(command("sessions", "--json")) == []


def test_sessions_as_a_table(command: Command) -> None:
    title, line = command("sessions").splitlines()
    assert title.startswith("ID")
    for part in ("s-1", "web-1", "alice", "192.0.2.1", "2020-09-13T12:26:40Z"):
        assert part in line


def test_close_one_and_all(command: Command) -> None:
    assert command("close", "s-1") == "1 session closed\n"
    assert command.supervisor.last(control.Close) == control.Close(id="s-1", by=login_name())
    command("close", "s-1", status=1)
    assert command("close", "--all") == "0 sessions closed\n"


def test_keys_are_added_listed_and_revoked(command: Command, tmp_path: Path) -> None:
    secret = command("key", "add", "web", "--guests", "web-*", "--guests", "db").strip()
    found = keys.Ring(str(tmp_path / "api-keys")).find(secret)
    assert found is not None
    assert found.guests == ("web-*", "db")
    assert secret not in command.err
    listed = command("key", "list")
    assert "web-* db" in listed
    (key,) = json.loads(command("key", "list", "--json"))
    assert set(key) == {"name", "guests", "mode", "created"}
    assert command.supervisor.last(control.Audit).key == "web"
    assert command("key", "revoke", "web") == "0 unused tokens revoked, 0 sessions closed\n"
    revoked = control.RevokeKey(key="web", close=False, by=login_name())
    assert command.supervisor.last(control.RevokeKey) == revoked
    assert json.loads(command("key", "list", "--json")) == []
    command("key", "revoke", "web", status=1)
    # The sessions of a key that is gone; or a slip of the pen.
    assert command("key", "revoke", "web", "--close").endswith(", 1 sessions closed\n")
    assert command.supervisor.last(control.RevokeKey).close
    command.supervisor.sessions = []
    assert command("key", "revoke", "wbe", "--close", status=1) == ""
    assert "no key of that name" in command.err


def test_a_key_is_revoked_though_nobody_can_be_told(command: Command) -> None:
    command("key", "add", "web")
    command.supervisor.failure = errors.Forbidden("not you")
    command("key", "revoke", "web", status=1)
    assert "the key is revoked, but" in command.err
    assert json.loads(command("key", "list", "--json")) == []


def test_config_check_and_show(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("config", "check") == f"{command.path}: ok\n"
    shown = tomllib.loads(command("config", "show"))
    assert shown["gateway"]["listen"] == "127.0.0.1:6083"
    with open(command.path, "w") as file:
        file.write('[gateway]\nlisten = "127.0.0.1:1"\ncolour = "red"\n')
    command("config", "check", status=1)
    assert f"{command.path}, line 3, key gateway.colour" in command.err


def test_show_says_where_a_value_comes_from(command: Command) -> None:
    lines = command("config", "show").splitlines()
    assert "ttl = 30  # default" in lines
    where = next(line for line in lines if line.startswith("control = "))
    with open(command.path, encoding="utf-8") as file:
        number = next(n for n, line in enumerate(file, 1) if line.startswith("control = "))
    assert where.endswith(f"  # {command.path}:{number}")


def test_check_names_every_mistake(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[gateway]\nlisten = 1\nhartbeat = 3\nttl = 5\n[tokns]\n[log]\nlevel = "all"\n')
    assert cli.main(["--config", str(path), "config", "check"]) == 1
    lines = sorted(capsys.readouterr().err.splitlines())
    assert [line.split(":")[1].split(", ")[1] for line in lines] == [
        "line 2",
        "line 3",
        "line 4",
        "line 5",
        "line 7",
    ]
    assert "did you mean heartbeat?" in lines[1]
    assert "it belongs into [tokens]" in lines[2]
    assert "did you mean tokens?" in lines[3]
    monkeypatch.setenv("SERIAL_CONSOLE_CONFIG", str(tmp_path / "none"))
    assert cli.main(["config", "check"]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_what_show_prints_is_a_configuration(command: Command) -> None:
    from serial_console import config

    shown = command("config", "show")
    assert config.parse(shown, "shown") == config.load(command.path)


def test_a_refusal_is_one_line(command: Command) -> None:
    command("token", "nobody", status=1)
    command.supervisor.failure = errors.LibvirtUnavailable("libvirt is\naway; start it")
    command("guests", status=1)
    assert command.err == "serial-console: libvirt is away; start it\n"


def test_no_supervisor(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(fakes.config_text(str(tmp_path), "/nonexistent"))
    command.path = str(path)
    for arguments in (
        ["guests"],
        ["sessions"],
        ["token", "g"],
        ["close", "--all"],
        ["attach", "g"],
    ):
        command(*arguments, status=1)
        assert "cannot reach the supervisor" in command.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["token"],
        ["token", "g", "--mode", "x"],
        ["token", "g", "--ttl", "0"],
        ["token", "g", "--ttl", "1e3"],
        ["token", "g", "--url", "--json"],
        ["close"],
        ["close", "s", "--all"],
        ["key"],
        ["guests", "--config", "x"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2


def test_a_token_does_not_load_what_only_services_need(command: Command) -> None:
    program = [sys.executable, "-X", "importtime", "-m", "serial_console"]
    arguments = [*program, "--config", command.path, "token", "web-1"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "serial_console.control" in loaded
    assert not loaded & {"fastapi", "uvicorn", "pydantic", "libvirt", "websockify", "asyncio"}


def test_a_reader_that_leaves_is_no_error(command: Command) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "serial_console", "--config", command.path, "guests"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_ctrl_c_is_quiet(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(channel, "call", interrupted)
    assert cli.main(["--config", command.path, "token", "g"]) == 1
