"""The config.toml that the packages install: every key, with its default and what it means."""

from __future__ import annotations

import os
import re

import pytest

from serial_console import config, reload
from serial_console.schema import Config

PATH = os.path.join(os.path.dirname(config.__file__), "config.toml")
with open(PATH, encoding="utf-8") as file:
    TEXT = file.read()
KEYS = [
    f"{table}.{key}"
    for table in Config.__struct_fields__
    for key in getattr(Config(), table).__struct_fields__
]


def documented() -> dict[str, str]:
    """Return the comment of each key."""
    found, table, comment = {}, "", []
    for line in TEXT.splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            table = heading[1]
        elif key := re.match(r"#(\w+) = ", line):
            found[f"{table}.{key[1]}"] = " ".join(comment)
        comment = [*comment, line.removeprefix("# ")] if line.startswith("# ") else []
    return found


def test_it_has_every_key_in_order_and_says_what_it_means() -> None:
    assert list(documented()) == KEYS
    for key, comment in documented().items():
        assert len(comment) > 20, key


def test_it_says_which_keys_wait_for_a_restart() -> None:
    assert {key for key, comment in documented().items() if "(restart)" in comment} == (
        reload.RESTART
    )


def test_its_lines_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, since an ordinary user has other paths, as the comments say."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    all_set = re.sub(r"^#(\w+ = )", r"\1", TEXT, flags=re.MULTILINE)
    assert all_set.count("\n") == TEXT.count("\n")
    assert config.parse(all_set, "all set") == config.parse("", "empty")
    assert config.parse(TEXT, PATH) == config.parse("", "empty")


def test_there_is_room_for_what_operators_add() -> None:
    assert len(TEXT) < config.FILE_MAX / 2
