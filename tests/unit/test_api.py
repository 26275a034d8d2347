"""REST in front of a FAKE supervisor: what it answers, to whom, and what it never tells."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from serial_console import __version__, access, api, control, errors, keys
from serial_console.listener import Listener
from serial_console.reload import Current

from .. import fakes
from .rest import Rest, logged, problem

HOSTILE = [
    "a/b",
    "../../etc/passwd",
    "with space",
    "gäst-✓",
    "x" * 300,
    "ü" * 300,
    "%2F",
    "q?x=1#y",
    "a/tokens",
    "\x1b[2J\n",
]


# ---- tokens


def test_a_token_with_nothing_asked(rest: Rest) -> None:
    answer = rest.ask("POST", "/v1/guests/web-1/tokens")
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["guest"] == "web-1"
    assert body["expires_at"] == "2023-11-14T22:13:20.250Z"
    assert body["websocket_url"].endswith(f"/websockify?token={body['token']}")
    assert body["page_url"].endswith(f"/serial.html#token={body['token']}")
    assert rest.supervisor.last(control.Issue) == control.Issue(guest="web-1", key="all")


def test_every_field_reaches_the_supervisor(rest: Rest) -> None:
    asked: dict[str, Any] = {
        "user": "älice",
        "mode": "ro",
        "console": "serial0",
        "ttl": 60,
        "takeover": True,
        "notices": False,
        "replay": 4096,
        "escape": "^]",
        "client_address": "192.0.2.1",
    }
    assert rest.issue("web-1", **asked).status_code == 201
    assert rest.supervisor.last(control.Issue) == control.Issue(guest="web-1", key="all", **asked)


@pytest.mark.parametrize(("replay", "sent"), [(True, None), (False, 0), (0, 0), (1, 1)])
def test_replay_is_a_switch_or_bytes(rest: Rest, replay: object, sent: int | None) -> None:
    assert rest.issue("web-1", replay=replay).status_code == 201
    assert rest.supervisor.last(control.Issue).replay == sent


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"resume": 3601}, "resume"),
        ({"mode": "rwx"}, "mode"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": 10**30}, "ttl"),
        ({"ttl": "30"}, "ttl"),
        ({"takeover": "yes"}, "takeover"),
        ({"escape": "q"}, "escape"),
        ({"replay": -1}, "replay"),
        ({"user": "x" * 257}, "user"),
        ({"user": None}, "user"),
    ],
)
def test_a_wrong_field_is_named(rest: Rest, body: dict[str, Any], field: str) -> None:
    answer = rest.issue("web-1", **body)
    assert field in problem(answer, 422, "bad_request")
    assert any(field in one["field"] for one in answer.json()["errors"])
    assert rest.supervisor.requests == []


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"user":"\\ud800"}', b"1" * 5000, b"[" * 15000]
)
def test_a_body_that_is_no_object(rest: Rest, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = rest.ask("POST", "/v1/guests/web-1/tokens", headers=headers, content=body)
    problem(answer, answer.status_code, "bad_request")
    assert answer.status_code in (400, 422)


def test_a_body_that_is_too_large(rest: Rest) -> None:
    answer = rest.ask("POST", "/v1/guests/web-1/tokens", content=b" " * (access.BODY_MAX + 1))
    assert "at most" in problem(answer, 413, "too_large")


def test_a_refused_value_is_not_repeated(rest: Rest) -> None:
    answer = rest.issue("web-1", mode="s3cret-in-the-wrong-place")
    assert "s3cret" not in answer.text


def test_the_longest_fields_together_fit_the_supervisors_line(rest: Rest) -> None:
    """Found by schemathesis: what the schema allowed was refused for its length in bytes."""
    longest = {"user": "\U0001f600" * 128, "console": "\x01" * 128, "client_address": "::1"}
    answer = rest.issue("\x01" * 400, **longest, ttl=86400, replay=1 << 24, resume=3600)
    problem(answer, 404, "no_such_guest")
    problem(rest.issue("x" * 401), 422, "bad_request")


def test_a_whole_number_may_be_written_as_a_float(rest: Rest) -> None:
    """JSON Schema's integer; some languages know no other numbers."""
    assert rest.issue("web-1", ttl=30.0, resume=5.0, replay=1.0).status_code == 201
    asked = rest.supervisor.last(control.Issue)
    assert (asked.ttl, asked.resume, asked.replay) == (30, 5, 1)
    for ttl in (30.5, "30", 1e308, True):
        problem(rest.issue("web-1", ttl=ttl), 422, "bad_request")


def test_a_refused_method_is_told_all_that_there_are(rest: Rest) -> None:
    answer = rest.ask("OPTIONS", "/v1/sessions/x")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET"


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_of_a_guest(rest: Rest, name: str) -> None:
    rest.supervisor.guests.append(fakes.guest(name))
    assert rest.issue(name).json()["guest"] == name
    described = rest.ask("GET", f"/v1/guests/{quote(name, safe='')}")
    assert described.json()["name"] == name
    problem(rest.issue(name + "x"), 404, "no_such_guest")


def test_a_slash_in_a_name_never_makes_another_route(rest: Rest) -> None:
    problem(rest.ask("POST", "/v1/guests/web-1%2Ftokens"), 405, "method_not_allowed")
    problem(rest.ask("POST", "/v1/guests/web/1/tokens"), 404, "not_found")
    problem(rest.ask("GET", "/v1/guests/"), 404, "not_found")
    problem(rest.ask("GET", "/v1%2Fguests"), 404, "not_found")
    assert rest.supervisor.requests == []


def test_a_name_that_is_not_utf_8(rest: Rest) -> None:
    assert "UTF-8" in problem(rest.ask("GET", "/v1/guests/%FF"), 422, "bad_request")


def test_a_guest_by_uuid(rest: Rest) -> None:
    uuid = rest.supervisor.guests[0]["uuid"]
    assert rest.issue(uuid).json()["guest"] == "web-1"


# ---- guests and sessions


def test_lists_have_every_page(rest: Rest) -> None:
    guests = rest.ask("GET", "/v1/guests").json()
    assert [one["name"] for one in guests["guests"]] == ["db", "web-1", "web-2"]
    assert rest.supervisor.asked(control.ListGuests) == 2
    sessions = rest.ask("GET", "/v1/sessions").json()["sessions"]
    assert [one["id"] for one in sessions] == ["s-db", "s-web"]


def test_a_session_is_described_and_closed_in_the_callers_name(rest: Rest) -> None:
    assert rest.ask("GET", "/v1/sessions/s-db").json()["opened_at"] == "2020-09-13T12:26:40.000Z"
    assert rest.ask("DELETE", "/v1/sessions/s-db").status_code == 204
    assert rest.supervisor.last(control.Close) == control.Close(id="s-db", key="all")
    problem(rest.ask("DELETE", "/v1/sessions/s-db"), 404, "no_such_session")


def test_a_token_is_revoked_once(rest: Rest) -> None:
    id_ = rest.issue("db").json()["id"]
    assert rest.ask("DELETE", f"/v1/tokens/{id_}").status_code == 204
    problem(rest.ask("DELETE", f"/v1/tokens/{id_}"), 404, "no_such_token")


# ---- failures


@pytest.mark.parametrize(
    "error",
    [
        errors.InUse("bob has it since 12:00"),
        errors.NoSuchConsole("there is no console serial7"),
        errors.UnsupportedConsole("a tcp console cannot be opened"),
        errors.LimitReached("10000 tokens wait"),
        errors.LibvirtUnavailable("libvirt is away"),
        errors.RelayLost("the relay died"),
    ],
)
def test_the_supervisors_errors_become_problems(rest: Rest, error: errors.ConsoleError) -> None:
    rest.supervisor.failure = error
    assert problem(rest.issue("db"), error.http, error.code) == str(error)


def test_other_paths_and_methods(rest: Rest) -> None:
    problem(rest.ask("GET", "/nothing"), 404, "not_found")
    answer = rest.ask("PUT", "/v1/guests")
    problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]
    problem(rest.ask("GET", "/docs"), 404, "not_found")


@pytest.mark.parametrize("raw", [b"garbage\n", b'{"v":1,"ok":true}\n', b"[]\n", b"", b"\xff\n"])
def test_a_supervisor_that_talks_nonsense(
    rest: Rest, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    rest.supervisor.raw = raw
    for answer in (rest.issue("db"), rest.ask("GET", "/v1/guests")):
        assert answer.status_code in (500, 503)
        assert answer.headers["content-type"] == "application/problem+json"
        assert "Traceback" not in answer.text
    assert rest.ask("GET", "/healthz/ready").json()["supervisor"] == "unavailable"
    assert "serial_console_up 0.0" in rest.ask("GET", "/metrics").text


def test_an_unexpected_exception_tells_no_secret(
    rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    @rest.app.get("/v1/bug")
    async def bug() -> None:
        raise RuntimeError("s3cret")

    with caplog.at_level(logging.DEBUG):
        answer = rest.ask("GET", "/v1/bug?token=s3cret")
    problem(answer, 500, "internal_error")
    assert "s3cret" not in answer.text + logged(caplog)
    assert "RuntimeError" in logged(caplog)


def test_the_log_tells_who_asked_what_but_no_secret(
    rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        token = rest.issue("web-1").json()["token"]
        rest.ask("DELETE", f"/v1/tokens/{token}")
        rest.ask("GET", f"/v1/guests?token={token}")
        rest.ask("GET", f"/{token}")
        rest.ask("GET", "/v1/guests", key="wr0ng")
    assert "POST /v1/guests/{guest}/tokens: 201, asked by all" in logged(caplog)
    assert "GET (no route): 401, asked by -" in logged(caplog)
    for secret in (token, rest.secret, "wr0ng"):
        assert secret not in logged(caplog)


def test_health_needs_no_key(rest: Rest) -> None:
    answer = rest.ask("GET", "/healthz", key=None)
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "version": __version__}
    answer = rest.ask("GET", "/healthz/ready", key=None)
    assert answer.status_code == 200
    ready = {"status": "ok", "supervisor": "ok", "libvirt": "ok", "sessions": 2, "version": "0"}
    assert answer.json() == ready


def test_the_api_lives_without_a_supervisor_and_is_not_ready(run_dir: str) -> None:
    config = fakes.config(run_dir)
    gate = access.Gate(
        api.build(Current(config)), keys.Ring(config.api.keys), {0}, 0, lambda _: None
    )

    async def once(path: str) -> httpx.Response:
        transport = httpx.ASGITransport(gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.get(path)

    assert asyncio.run(once("/healthz")).status_code == 200
    answer = asyncio.run(once("/healthz/ready"))
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unavailable",
        "supervisor": "unavailable",
        "libvirt": "unknown",
        "sessions": 0,
        "version": "",
    }


def test_how_things_are_is_told_while_others_wait(
    run_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that hangs keeps every thread there is for requests busy."""
    monkeypatch.setattr(api, "PROMPT", 0.5)
    current = Current(fakes.config(run_dir, str(tmp_path / "api-keys")))
    app = api.build(current)

    async def asked() -> None:
        ring = keys.Ring(current.config.api.keys)
        transport = httpx.ASGITransport(access.Gate(app, ring, {os.getuid()}, 0, lambda _: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            listings = [
                asyncio.create_task(client.get("/v1/guests", headers=key)) for _ in "x" * 50
            ]
            loop, held = asyncio.get_running_loop(), []
            async with asyncio.timeout(10):
                while len(held) < 40:
                    held.append((await loop.sock_accept(listener.sock))[0])
            pages = "/healthz/ready", "/metrics"
            answered = asyncio.create_task(client.get("/healthz/ready"))
            held.append((await loop.sock_accept(listener.sock))[0])
            held[-1].setblocking(True)
            health = {"status": "ok", "libvirt": "ok", "sessions": 0, "version": "0"}
            held[-1].sendall(control.answer(**health))
            assert (await answered).status_code == 200
            async with asyncio.timeout(2.5):  # one after the other they would take 4 s
                asking = (client.get(page, headers=key) for page in pages * 32)
                answers = await asyncio.gather(*asking)
            assert not any(one.done() for one in listings)
            assert {one.status_code for one in answers[::2]} == {503}
            assert all("serial_console_up 0.0" in one.text for one in answers[1::2])
            for sock in held:
                sock.close()
            for one in listings:
                one.cancel()

    key = {"Authorization": f"Bearer {keys.add(current.config.api.keys, 'all')}"}
    with contextlib.closing(Listener(current.config.paths.admin)) as listener:
        asyncio.run(asked())


# ---- OpenAPI


def test_openapi_tells_of_problems_and_keys(rest: Rest) -> None:
    spec = rest.ask("GET", "/openapi.json").json()
    assert set(spec["paths"]) == {
        "/v1/guests/{guest}/tokens",
        "/v1/guests/{guest}/remote-consoles",
        "/v2.1/servers/{guest}/remote-consoles",
        "/v1/guests",
        "/v1/guests/{guest}",
        "/v1/sessions",
        "/v1/sessions/{id}",
        "/v1/tokens/{id}",
        "/healthz",
        "/healthz/ready",
        "/metrics",
    }
    assert spec["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert spec["security"] == [{"key": []}]
    assert "HTTPValidationError" not in str(spec)
    for path, item in spec["paths"].items():
        for operation in item.values():
            nova = path.startswith("/v2.1/")
            assert list(operation["responses"]["default"]["content"]) == [
                "application/json" if nova else "application/problem+json"
            ]
            keys = [{"key": []}, {"nova": []}] if nova else None
            assert operation.get("security") == ([] if path.startswith("/healthz") else keys)
    token = spec["components"]["schemas"]["Token"]["properties"]
    assert token["expires_at"]["description"] == "RFC 3339, UTC."
    assert not spec["components"]["schemas"]["TokenRequest"]["additionalProperties"]


def test_nova_s_clients_get_their_shape(rest: Rest) -> None:
    path = "/v1/guests/web-1/remote-consoles"
    asked = {"remote_console": {"protocol": "serial", "type": "serial"}}
    answer = rest.ask("POST", path, json=asked)
    assert answer.status_code == 200, answer.text
    console = answer.json()["remote_console"]
    assert (console["protocol"], console["type"]) == ("serial", "serial")
    assert console["url"].startswith("ws://127.0.0.1:6083/websockify?token=")
    other = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    problem(rest.ask("POST", path, json=other), 422, "bad_request")
