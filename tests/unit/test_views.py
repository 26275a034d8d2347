"""What REST and ``--json`` show."""

from __future__ import annotations

import json

import pytest

from serial_console import views
from serial_console.config import Config, parse
from serial_console.errors import SupervisorUnavailable

from .. import fakes

ISSUED = {
    "v": 1,
    "ok": True,
    "id": "i",
    "token": "S-_3cret",
    "guest": "web/1",
    "uuid": "u",
    "console": "serial0",
    "mode": "rw",
    "user": "alice",
    "expires_at": fakes.EXPIRES_AT,
}


def _config(gateway: str) -> Config:
    paths = '[paths]\nconsoles = "/c"\ncontrol = "/d"\napi = "/a"\n'
    return parse(f"{paths}[gateway]\n{gateway}", "test.toml")


@pytest.mark.parametrize(
    ("gateway", "websocket", "page"),
    [
        (
            'public_url = "https://host.example/console/"',
            "wss://host.example/console/websockify?token=S-_3cret",
            "https://host.example/console/serial.html#token=S-_3cret",
        ),
        (
            'public_url = "http://host.example"',
            "ws://host.example/websockify?token=S-_3cret",
            "http://host.example/serial.html#token=S-_3cret",
        ),
        (
            'listen = "127.0.0.1:6083"',
            "ws://127.0.0.1:6083/websockify?token=S-_3cret",
            "http://127.0.0.1:6083/serial.html#token=S-_3cret",
        ),
        (
            'listen = "[::1]:443"\ntls_cert = "c"\ntls_key = "k"',
            "wss://[::1]:443/websockify?token=S-_3cret",
            "https://[::1]:443/serial.html#token=S-_3cret",
        ),
    ],
)
def test_urls_of_a_token(gateway: str, websocket: str, page: str) -> None:
    token = views.token(_config(gateway), ISSUED)
    assert token.websocket_url == websocket
    assert token.page_url == page


def test_url_never_names_the_wildcard_address() -> None:
    base = views.page_base(_config('listen = "0.0.0.0:6083"\ninsecure = true'))
    assert "0.0.0.0" not in base


def test_times_are_rfc_3339_utc() -> None:
    assert views.token(_config(""), ISSUED).expires_at == "2023-11-14T22:13:20.250Z"
    shown = views.session(fakes.session("s", fakes.guest("a")))
    assert shown.opened_at == "2020-09-13T12:26:40.000Z"


def test_json_has_exactly_the_designed_members() -> None:
    guest = json.loads(views.to_json(views.guest(fakes.guest("gäst"))))
    assert guest == fakes.guest("gäst")
    listed = json.loads(views.to_json([views.session(fakes.session("s", fakes.guest("a")))]))
    assert set(listed[0]) == set(fakes.session("s", fakes.guest("a")))
    token = json.loads(views.to_json(views.token(_config(""), ISSUED)))
    assert set(token) == (set(ISSUED) - {"v", "ok"}) | {"websocket_url", "page_url"}


@pytest.mark.parametrize("broken", [{}, {"name": 1}, {**fakes.guest("a"), "consoles": None}])
def test_an_answer_of_another_version_is_said_to_be_one(broken: dict[str, object]) -> None:
    with pytest.raises(SupervisorUnavailable, match="another version"):
        views.guest(broken)
