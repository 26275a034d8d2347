"""What the gateway serves and with which headers; the rest: tests/integration/test_gateway.py."""

from __future__ import annotations

import gzip
import json
import os
import pathlib

import pytest

from websockify_tokens.pages import Pages, SettingsError, accepts_gzip

OTHER = "https://manager.example"


@pytest.fixture
def web(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "web"
    (made / "vendor").mkdir(parents=True)
    (made / "serial.html").write_text("<!doctype html>" + " " * 1000, encoding="utf-8")
    (made / "vendor" / "small.js").write_text("1", encoding="utf-8")
    (made / "package.json").write_text("{}", encoding="utf-8")
    return made


def offered(settings: pathlib.Path | str, name: str) -> object:
    pages = Pages("/nowhere", str(settings))
    pages.permit(["https://fonts.example"], [])
    page = pages.find(f"/{name}")
    assert page is not None
    return json.loads(page.body)


def test_files_are_packed_where_that_is_shorter(web: pathlib.Path) -> None:
    pages = Pages(str(web), "")
    page = pages.find("/")
    assert page is not None
    assert page.packed is not None
    assert gzip.decompress(page.packed) == page.body == (web / "serial.html").read_bytes()
    small = pages.find("/vendor/small.js")
    assert small is not None
    assert (small.body, small.packed) == (b"1", None)
    assert pages.find("/package.json") is None


def test_a_page_is_of_one_version(web: pathlib.Path) -> None:
    pages = Pages(str(web), "")
    (web / "vendor" / "small.js").write_text("2", encoding="utf-8")
    page = pages.find("/vendor/small.js")
    assert page is not None
    assert page.body == b"1"


@pytest.mark.parametrize(
    ("accepted", "whether"),
    [
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, GZIP;q=0.1", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("br, gzip ; q=0.000", False),
        ("xgzip", False),
    ],
)
def test_gzip_is_for_those_who_take_it(accepted: str, whether: bool) -> None:
    assert accepts_gzip(accepted) is whether


def test_the_operators_settings_go_with_the_gateways(tmp_path: pathlib.Path) -> None:
    own = {"connect_origins": ["https://fonts.example"], "token_subprotocol": True}
    assert offered("", "defaults.json") == offered(tmp_path, "defaults.json") == own
    assert offered(tmp_path, "mandatory.json") == {}
    (tmp_path / "defaults.json").write_text('{"font_size": 20}', encoding="utf-8")
    (tmp_path / "mandatory.json").write_text('{"view_only": true}', encoding="utf-8")
    assert offered(tmp_path, "defaults.json") == own | {"font_size": 20}
    assert offered(tmp_path, "mandatory.json") == {"view_only": True}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"view_only": true,}', "line 1 column 20"),
        (b"", "not JSON"),
        (b"[]", "no JSON object"),
        (b'{"font_size": NaN}', "NaN"),
        (b'{"font_size": 1e999}', "1e999"),
        (b'{"title": "' + b"x" * 65536 + b'"}', "more than 65536 bytes"),
        (b"\xff", "not JSON"),
        (b"[" * 60000, "not JSON"),
        (
            b'{"connect_origins": ["https://evil.example"]}',
            '"connect_origins" is not for this file',
        ),
        (b'{"token_subprotocol": false}', '"token_subprotocol" is not for this file'),
        (None, "Is a directory"),
    ],
)
def test_settings_that_cannot_be_used_are_not_left_out(
    tmp_path: pathlib.Path, content: bytes | None, why: str
) -> None:
    """One that is mandatory might be missing."""
    path = tmp_path / "mandatory.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as wrong:
        offered(tmp_path, "mandatory.json")
    assert str(path) in str(wrong.value)
    assert why in str(wrong.value)
    assert b"mandatory.json" in wrong.value.page.body
    assert str(tmp_path).encode() not in wrong.value.page.body


def test_a_pipe_in_the_place_of_settings_keeps_nobody_waiting(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "defaults.json")
    with pytest.raises(SettingsError, match="no regular file"):
        offered(tmp_path, "defaults.json")


def test_nobody_else_may_embed_the_page() -> None:
    pages = Pages("/nowhere", "")
    headers = dict(pages.headers(None))
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert pages.headers(OTHER) == pages.headers(None)


def test_those_who_may_open_consoles_may_embed_the_page_and_import_its_modules() -> None:
    pages = Pages("/nowhere", "")
    pages.permit([], [OTHER, "https://second.example"])
    headers = dict(pages.headers(OTHER))
    policy = headers["Content-Security-Policy"]
    assert policy.endswith(f"frame-ancestors 'self' {OTHER} https://second.example")
    assert "X-Frame-Options" not in headers
    assert headers["Access-Control-Allow-Origin"] == OTHER
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    for origin in (None, "https://evil.example", "null", f"{OTHER}.evil.example"):
        found = dict(pages.headers(origin))
        assert "Access-Control-Allow-Origin" not in found
        assert found["Cross-Origin-Resource-Policy"] == "same-origin"
        assert found["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "clipboard-read=()" in found["Permissions-Policy"]
        assert "clipboard-write" not in found["Permissions-Policy"]
