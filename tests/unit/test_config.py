"""The configuration file: defaults, and a clear sentence for every mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serial_console import config
from serial_console.errors import ConfigError
from serial_console.names import printable

PATHS = '[paths]\nconsoles = "/c"\ncontrol = "/d"\napi = "/a"\n'


def test_an_empty_file_is_complete() -> None:
    settings = config.parse(PATHS, "x.toml")
    assert settings.libvirt.uri.startswith("qemu:///")
    assert settings.api.keys.endswith("serial-console/api-keys")
    assert settings.paths.admin == "/d/admin.sock"
    assert settings.paths.api_socket == "/a/api.sock"
    assert (settings.tokens.ttl, settings.session.escape) == (30, "ctrl-q")


def test_a_user_gets_folders_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    settings = config.parse("", "x.toml")
    assert settings.libvirt.uri == "qemu:///session"
    assert settings.paths.control.startswith(f"{tmp_path}/serial-console/")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="set XDG_RUNTIME_DIR"):
        config.parse("", "x.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[gateway]\n\ncolour = 1",
            ["x.toml", "line 3", "gateway.colour", "unknown key", "listen"],
        ),
        ("[nonsense]", ["line 1", "nonsense", "unknown key", "gateway"]),
        ("[tokens]\nttl = 'x'", ["line 2", "tokens.ttl", "a whole number, not text; it is: s "]),
        ("[tokens]\nttl = 0", ["line 2", "tokens.ttl"]),
        ("[session]\non_guest_stop = 'explode'", ["line 2", "session.on_guest_stop"]),
        ("[api]\npeer_uids = [0, -1]", ["line 2", "api.peer_uids"]),
        ("[gateway\n\n", ["x.toml", "TOML", "line 1"]),
        ("[api]\nlisten = '0.0.0.0:80'", ["x.toml", "line 2", "api.listen", "loopback"]),
        ("[gateway]\nlisten = '0.0.0.0:80'", ["gateway.listen", "TLS", "insecure"]),
        ("[gateway]\nlisten = '[::]:80'", ["gateway.listen", "TLS"]),
        ("[gateway]\nlisten = '6083'", ["6083", "host:port"]),
        ("[gateway]\nlisten = '127.0.0.1:66000'", ["66000", "host:port"]),
        ("[gateway]\ntls_cert = 'c'", ["tls_key", "both"]),
        ("[gateway]\ntrusted_proxies = ['10.0.0.1/8']", ["gateway.trusted_proxies", "10.0.0.1/8"]),
        ("[gateway]\ntrusted_proxies = ['proxy']", ["gateway.trusted_proxies", "proxy"]),
        ("[gateway]\nhandshake_timeout = 0", ["line 2", "gateway.handshake_timeout"]),
        ("[gateway]\nmax_unauthenticated = 0", ["line 2", "gateway.max_unauthenticated"]),
        ("[gateway]\nallowed_origins = ['null']", ["gateway.allowed_origins", '"null"']),
        ("[gateway]\nallowed_origins = ['*']", ["gateway.allowed_origins", '"*"']),
        (
            "[gateway]\nallowed_origins = ['https://x/']",
            ["gateway.allowed_origins", '"https://x/"'],
        ),
        ("[gateway]\nconnect_origins = ['https://x; x']", ["gateway.connect_origins", "; x"]),
        ("[gateway]\npublic_url = 'https://a@b'", ["line 2", "gateway.public_url", "…@b"]),
        ("[gateway]\npublic_url = 'host.example'", ["public_url", "https://"]),
        ("[session]\nescape = 'q'", ["x.toml", "escape", "ctrl-q"]),
        # Found by fuzzing:
        ("a = " + "[" * 3000, ["x.toml", "TOML"]),
        ("a = " + "9" * 5000, ["x.toml", "TOML", "4300 digits"]),
        ("[tokens]\nttl = 0x" + "f" * 5000, ["line 2", "tokens.ttl"]),
        ("[tokens]\nttl = 1" + "0" * 300, ["line 2", "tokens.ttl", "86400"]),
        ("[limits]\nsessions = 4294967296", ["line 2", "limits.sessions"]),
        ('[paths]\napi = "/a\\u0000"', ["line 2", "paths.api", "control or invisible"]),
        ('[gateway]\nallowed_origins = ["x\\u202e"]', ["line 2", "gateway.allowed_origins"]),
        ('"\\u001b[2J\\n" = 1', ["line 1", "unknown key"]),
        ('"x - at `y" = 1', ["line 1", "key x - at `y", "unknown key"]),
        ("[session]\n'x - at `$.a`' = 1", ["line 1", "key session.x - at `$.a`", "unknown key"]),
        ("[log]\nlevel = 'x - at `$.a`'", ["line 2", "key log.level", "expected one of"]),
        ("# one line\u2028\x85\nnonsense = 1", ["line 2", "nonsense"]),
        ("[gateway]\nlisten = '127.0.0.1:٦٠٨٣'", ["host:port"]),
        ("[gateway]\nlisten = 'a..b:80'\ninsecure = true", ["host:port"]),
        ("[gateway]\npublic_url = 'https://[x'", ["public_url", "no URL"]),
        ("[gateway]\nallowed_origins = ['https://x:y']", ["allowed_origins", "as browsers do"]),
        ("a." * 20000 + "b = 1", ["x.toml", "16384"]),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        config.parse(text, "x.toml")
    for word in words:
        assert word in str(raised.value)
    assert str(raised.value) == printable(str(raised.value))
    assert len(str(raised.value)) < 600


def test_all_mistakes_are_told_with_their_lines_and_no_password(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        "[gateway]\nlisten = 'u:SECRET@h:1'\npublic_url = 'https://u:SECRET@h'\n"
        "allowed_origins = ['https://u:SECRET@h']\n"
        "[session]\nescape = 'u:SECRET@x'\n[api]\nlisten = 'a:b:c'\n[limits]\nsessions = '9'\n"
    )
    told = config.mistakes(str(path))
    keys = [one.partition(", ")[2].partition(": ")[0] for one in told]
    assert keys == [
        "line 2, key gateway.listen", "line 3, key gateway.public_url",
        "line 4, key gateway.allowed_origins", "line 6, key session.escape",
        "line 8, key api.listen", "line 10, key limits.sessions",
    ]  # fmt: skip
    assert "SECRET" not in "".join(told)


def test_what_one_key_says_of_another_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[gateway]\ntls_cert = '/x'\n")
    (mistake,) = config.mistakes(str(path))
    assert "line 2, key gateway.tls_cert: tls_cert and tls_key go together" in mistake
    path.write_text("[gateway]\ntls_cert = '/x'\nnonsense = 1\nlisten = 1\n")
    assert [one.partition(",")[2][:7] for one in config.mistakes(str(path))] == [
        " line 3",
        " line 4",
    ]
    path.write_text("")
    assert config.mistakes(str(path)) == []


def test_listening_elsewhere_is_possible_on_purpose() -> None:
    for text in ("insecure = true", 'tls_cert = "c"\ntls_key = "k"'):
        config.parse(f'{PATHS}[gateway]\nlisten = "0.0.0.0:443"\n{text}', "x.toml")


def test_proxies_and_origins() -> None:
    gateway = config.parse(
        f'{PATHS}[gateway]\ntrusted_proxies = ["::1", "10.0.0.0/8"]\n'
        'allowed_origins = ["https://a.example:8443", "http://[::1]:80"]',
        "x.toml",
    ).gateway
    assert [str(one) for one in config.networks(gateway.trusted_proxies)] == [
        "::1/128",
        "10.0.0.0/8",
    ]


@pytest.mark.parametrize("data", [None, b"\xff"])
def test_a_file_that_cannot_be_read(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "config.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=str(path)):
        config.load(str(path))


@pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A FIFO without a writer would keep a service from starting, and one that runs from all."""
    path, words = str(tmp_path / "config.toml"), "not a regular file, but a pipe or a device; copy"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            os.mkdir(path)
            words = "directory; name a readable file"
        case "device":
            os.symlink("/dev/zero", path)
    with pytest.raises(ConfigError, match=words) as caught:
        config.load(path)
    assert path in str(caught.value)
    assert config.mistakes(path) == [str(caught.value)]


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, ttl in (("one", 1), ("two", 2)):
        (tmp_path / name).write_text(f"{PATHS}[tokens]\nttl = {ttl}")
    monkeypatch.setenv("SERIAL_CONSOLE_CONFIG", str(tmp_path / "one"))
    assert config.load().tokens.ttl == 1
    assert config.load(str(tmp_path / "two")).tokens.ttl == 2
    monkeypatch.setenv("SERIAL_CONSOLE_CONFIG", "")
    unnamed = config.load()
    monkeypatch.delenv("SERIAL_CONSOLE_CONFIG")
    assert unnamed == config.load()


@pytest.mark.parametrize(
    ("text", "byte"),
    [("ctrl-q", b"\x11"), ("Ctrl-Q", b"\x11"), ("^]", b"\x1d"), ("ctrl-]", b"\x1d"), ("", b"")],
)
def test_escape_keys(text: str, byte: bytes) -> None:
    assert config.escape_byte(text) == byte


@pytest.mark.parametrize(
    "text", ["q", "ctrl-", "^^^", "ctrl-é", "alt-q", "ctrl-q\n", "ctrl-\N{KELVIN SIGN}"]
)
def test_what_is_no_escape_key(text: str) -> None:
    with pytest.raises(ConfigError):
        config.escape_byte(text)


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("127.0.0.1:6083", ("127.0.0.1", 6083)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_addresses(listen: str, found: tuple[str, int]) -> None:
    assert config.address(listen) == found


def test_a_wrong_choice_is_answered_with_the_choices_and_not_repeated() -> None:
    text = '[tokens]\nstore = "redis://u:secret@host/0"\n'
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "c.toml")
    assert str(caught.value) == 'c.toml, line 2, key tokens.store: expected one of "memory"'
