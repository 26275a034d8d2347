"""Hostile names as file names and in sentences."""

from __future__ import annotations

import os
import re
import socket
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serial_console import names

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(NAME)
@example("..")
@example(".")
@example("a/b")
def test_a_name_becomes_one_safe_component(name: str) -> None:
    encoded = names.encode(name)
    assert re.fullmatch(r"[A-Za-z0-9_.%-]*", encoded)
    assert not encoded.startswith(".")
    assert os.path.basename(encoded) == encoded


@given(NAME)
@example("%2E")
@example(".")
def test_different_names_stay_different(name: str) -> None:
    assert unquote(names.encode(name)) == name


@given(NAME, st.none() | NAME.filter(lambda alias: len(alias) < 20))
def test_a_socket_stays_in_its_directory_and_fits(name: str, alias: str | None) -> None:
    path = names.console_socket("/run/console", name, UUID, alias)
    assert os.path.dirname(os.path.normpath(path)) == "/run/console"
    if alias is None or len(names.encode(alias)) <= 40:
        assert len(os.fsencode(path)) <= names.SUN_PATH_MAX


@pytest.mark.parametrize("name", ["x" * 300, "ü" * 300])
def test_a_long_name_falls_back_to_the_uuid(name: str) -> None:
    assert names.console_socket("/run/console", name, UUID, None) == f"/run/console/{UUID}.sock"
    assert UUID in names.console_socket("/run/console", name, UUID, "serial1")


def test_an_alias_of_any_length_has_a_path_of_its_own() -> None:
    """A user may name a device: ``ua-`` and what they like (libvirt's formatdomain)."""
    paths = {names.console_socket("/run/console", "x", UUID, "ua-" + "y" * n) for n in range(120)}
    assert len(paths) == 120
    assert max(map(len, paths)) <= names.SUN_PATH_MAX


def test_the_kernel_takes_the_longest_path(run_dir: str) -> None:
    name = "x" * (names.SUN_PATH_MAX - len(run_dir) - len("/.sock"))
    path = names.console_socket(run_dir, name, UUID, None)
    assert len(path) == names.SUN_PATH_MAX
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    os.unlink(path)
    assert UUID in names.console_socket(run_dir, name + "x", UUID, None)


def test_a_second_console_cannot_be_mistaken_for_another_guest() -> None:
    second = names.console_socket("/run/console", "web", UUID, "serial1")
    assert second == "/run/console/web+serial1.sock"
    assert names.console_socket("/run/console", "web+serial1", UUID, None) != second


@given(st.text())
@example("\ud800\x1b[2J\u2028\x9b")
@example("web\u202egnp.1\u2066\u200f\ufeff\U000e0041")
@example("web\u202egnp.exe\u2069\ufeff\u200b\xad")
def test_what_is_shown_is_harmless(name: str) -> None:
    shown = names.shown(name)
    assert len(shown) <= 64
    categories = {unicodedata.category(one) for one in shown}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert shown.encode().decode() == shown
