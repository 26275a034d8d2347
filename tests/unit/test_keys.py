"""The file of API keys."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serial_console import keys
from serial_console.errors import BadRequest, ConfigError, SetupError


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "etc" / "api-keys")


def test_add_makes_directory_and_a_private_file_without_the_secret(path: str) -> None:
    secret = keys.add(path, "kimchi", ["web-*", "db"], "ro")
    assert len(secret) >= 43  # 256 bits
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert secret not in Path(path).read_text()
    (key,) = keys.load(path)
    assert (key.name, key.guests, key.mode) == ("kimchi", ("web-*", "db"), "ro")
    assert key.created.endswith("Z")


def test_find_knows_each_key_and_no_other(path: str) -> None:
    one, two = keys.add(path, "one"), keys.add(path, "two")
    ring = keys.Ring(path)
    for secret, name in ((one, "one"), (two, "two")):
        found = ring.find(secret)
        assert found is not None
        assert found.name == name
    assert ring.find("") is None
    assert ring.find(one + "x") is None
    assert ring.find("\udcff\x00ü") is None


def test_revoke_and_add_work_at_once_in_a_running_ring(path: str) -> None:
    ring = keys.Ring(path)
    assert ring.find("x") is None  # no file yet
    one = keys.add(path, "one")
    assert ring.find(one)
    two = keys.add(path, "two")
    assert ring.find(two)
    keys.revoke(path, "one")
    assert ring.find(one) is None
    assert ring.find(two)
    os.unlink(path)
    assert ring.find(two) is None


def test_concurrent_adds_lose_none(path: str) -> None:
    names = [f"key{number}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: keys.add(path, name), names))
    assert sorted(key.name for key in keys.load(path)) == sorted(names)
    assert os.listdir(os.path.dirname(path)) == ["api-keys"]


def test_a_key_of_that_name_is_not_replaced(path: str) -> None:
    secret = keys.add(path, "one")
    with pytest.raises(BadRequest, match="there is a key named one already"):
        keys.add(path, "one")
    assert keys.Ring(path).find(secret)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a\n", "ä", "x" * 65, "../x"])
def test_bad_names(path: str, name: str) -> None:
    with pytest.raises(BadRequest, match="choose such a name"):
        keys.add(path, name)
    assert not os.path.exists(path)


def test_revoke_of_an_unknown_key(path: str) -> None:
    with pytest.raises(BadRequest, match="no key of that name"):
        keys.revoke(path, "nobody")


def test_owner_mode_and_symlink_of_the_operator_stay(path: str, tmp_path: Path) -> None:
    keys.add(path, "one")
    os.chmod(path, 0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    keys.add(str(link), "two")
    assert link.is_symlink()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert len(keys.load(path)) == 2


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644])
def test_a_file_open_to_others_is_refused_with_what_to_do(path: str, mode: int) -> None:
    secret = keys.add(path, "one")
    ring = keys.Ring(path)
    assert ring.find(secret)
    os.chmod(path, mode)
    for use in (lambda: keys.load(path), lambda: ring.find(secret), lambda: keys.add(path, "two")):
        with pytest.raises(ConfigError, match=f"chmod g-w,o= {path}"):
            use()
    os.chmod(path, 0o600)
    assert ring.find(secret)


@pytest.mark.parametrize(
    "line",
    [b"plain-secret", b"\xff\xfe", b"{}", b'{"name":"a","sha256":"x","created":"","color":1}'],
)
def test_a_broken_line_is_named_but_not_repeated(path: str, line: bytes) -> None:
    secret = keys.add(path, "one")
    with open(path, "ab") as file:
        file.write(b"\n" + line + b"\n")
    ring = keys.Ring(path)
    with pytest.raises(ConfigError, match="line 3: not a key") as raised:
        ring.find(secret)
    assert "plain-secret" not in str(raised.value)


def test_what_is_not_a_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(ConfigError, match="not a file"):
        keys.load(str(fifo))
    with pytest.raises(ConfigError, match="directory"):
        keys.load(str(tmp_path))


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"api\.keys"):
        keys.add(str(tmp_path / "file" / "api-keys"), "one")


@pytest.mark.parametrize(
    ("globs", "name", "covered"),
    [
        (["*"], "any/thing", True),
        (["web-*"], "web-1", True),
        (["web-*"], "Web-1", False),
        (["web-*"], "my-web-1", False),
        (["db", "web-?"], "db", True),
        (["web-?"], "web-1\n", False),
    ],
)
def test_globs(globs: list[str], name: str, covered: bool) -> None:
    assert keys.Grant(name="g", guests=tuple(globs)).covers(name) is covered


@pytest.mark.parametrize(
    "line",
    [
        b'{"name": "x", "sha256": "\xc3\xa9", "created": ""}',  # broke every look-up
        b'{"name": "x", "sha256": "9F", "created": ""}',
        b"[" * 5000,
        b'{"name": ' + b"[" * 5000,
        b'{"' + b"x" * 5000 + b'": 1}',
    ],
    ids=["a hash beyond ASCII", "a short hash", "nested", "a nested field", "a long field"],
)
def test_a_line_that_fuzzing_found(path: str, line: bytes) -> None:
    keys.add(path, "good")
    with open(path, "ab") as file:
        file.write(line + b"\n")
    for look in (lambda: keys.load(path), lambda: keys.Ring(path).find("x")):
        with pytest.raises(ConfigError, match="line 2: not a key") as raised:
            look()
        assert len(str(raised.value)) < 400
