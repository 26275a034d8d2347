"""REST in front of a FAKE supervisor: what it answers, to whom, and what it never tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from serial_console import access, api, control, errors, keys
from serial_console.config import Config

from .. import fakes

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


class Rest:
    """The application, its FAKE supervisor, and a client of it."""

    def __init__(self, config: Config, supervisor: fakes.FakeSupervisor) -> None:
        self.config = config
        self.supervisor = supervisor
        self.app: FastAPI = api.build(config)
        self.gate = access.Gate(self.app, keys.Ring(config.api.keys), {0})
        self.secret = keys.add(config.api.keys, "all")

    def key(self, name: str, *globs: str, mode: str = "rw") -> str:
        return keys.add(self.config.api.keys, name, globs, mode)

    def ask(
        self, method: str, path: str, key: str | None = "", headers: Any = (), **more: Any
    ) -> httpx.Response:
        """Send a request with a key: the unlimited one, another one, or (None) none."""
        sent = dict(headers)
        if key is not None:
            sent["Authorization"] = f"Bearer {key or self.secret}"

        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.gate)
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
                return await client.request(method, path, headers=sent, **more)

        return asyncio.run(once())

    def issue(self, guest: str, key: str = "", **body: Any) -> httpx.Response:
        return self.ask("POST", f"/v1/guests/{quote(guest, safe='')}/tokens", key, json=body)


@pytest.fixture
def rest(run_dir: str, tmp_path: Path) -> Iterator[Rest]:
    config = fakes.config(run_dir, str(tmp_path / "api-keys"))
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.guests = [fakes.guest("web-1"), fakes.guest("web-2"), fakes.guest("db")]
        supervisor.sessions = [
            fakes.session("s-web", supervisor.guests[0], "t-web"),
            fakes.session("s-db", supervisor.guests[2], "t-db"),
        ]
        yield Rest(config, supervisor)


def problem(answer: httpx.Response, status: int, code: str) -> str:
    """Assert that it is that problem, whole and well-formed, and return its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == "about:blank"
    assert body["title"]
    detail: str = body["detail"]
    assert detail
    return detail


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return what our side logged; the client's own log has its URLs."""
    return "\n".join(one.getMessage() for one in caplog.records if one.name != "httpx")


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
    assert rest.supervisor.last(control.Issue) == control.Issue(guest="web-1")


def test_every_field_reaches_the_supervisor(rest: Rest) -> None:
    asked = {
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
    assert rest.supervisor.last(control.Issue) == control.Issue(guest="web-1", **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(("replay", "sent"), [(True, None), (False, 0), (0, 0), (1, 1)])
def test_replay_is_a_switch_or_bytes(rest: Rest, replay: object, sent: int | None) -> None:
    assert rest.issue("web-1", replay=replay).status_code == 201
    assert rest.supervisor.last(control.Issue).replay == sent


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"resume": 10}, "resume"),
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
def test_a_wrong_field_is_named(rest: Rest, body: dict[str, object], field: str) -> None:
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
    assert rest.supervisor.last(control.Close) == control.Close(id="s-db", by="all")
    problem(rest.ask("DELETE", "/v1/sessions/s-db"), 404, "no_such_session")


def test_a_token_is_revoked_once(rest: Rest) -> None:
    id_ = rest.issue("db").json()["id"]
    assert rest.ask("DELETE", f"/v1/tokens/{id_}").status_code == 204
    problem(rest.ask("DELETE", f"/v1/tokens/{id_}"), 404, "no_such_token")


# ---- who may what


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YWxsOmFsbA=="},
    ],
)
@pytest.mark.parametrize("path", ["/v1/guests", "/openapi.json", "/no/such/path", "/v1/tokens/x"])
def test_without_a_good_key(rest: Rest, headers: dict[str, str], path: str) -> None:
    answer = rest.ask("GET", path, key=None, headers=headers)
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert rest.supervisor.requests == []


def test_a_revoked_key_is_refused_at_once(rest: Rest) -> None:
    key = rest.key("gone", "*")
    assert rest.ask("GET", "/v1/guests", key).status_code == 200
    keys.revoke(rest.config.api.keys, "gone")
    problem(rest.ask("GET", "/v1/guests", key), 401, "unauthorized")


def test_a_broken_keys_file_refuses_without_its_path(rest: Rest) -> None:
    with open(rest.config.api.keys, "a") as file:
        file.write("broken\n")
    detail = problem(rest.ask("GET", "/v1/guests"), 503, "unavailable")
    assert rest.config.api.keys not in detail


def test_a_limited_key_sees_only_its_guests(rest: Rest) -> None:
    key = rest.key("web", "web-*")
    guests = rest.ask("GET", "/v1/guests", key).json()["guests"]
    assert [one["name"] for one in guests] == ["web-1", "web-2"]
    sessions = rest.ask("GET", "/v1/sessions", key).json()["sessions"]
    assert [one["id"] for one in sessions] == ["s-web"]
    assert rest.issue("web-2", key).status_code == 201
    assert rest.issue(rest.supervisor.guests[1]["uuid"], key).status_code == 201


@pytest.mark.parametrize("method", ["guest", "token", "wrong console"])
def test_a_hidden_guest_is_answered_like_an_unknown_one(rest: Rest, method: str) -> None:
    key = rest.key("web", "web-*")
    hidden = rest.supervisor.guests[2]

    def ask(name: str) -> dict[str, Any]:
        if method == "guest":
            answer = rest.ask("GET", f"/v1/guests/{name}", key)
        else:
            console = "serial9" if method == "wrong console" else "serial0"
            answer = rest.issue(name, key, console=console)
        problem(answer, 404, "no_such_guest")
        body: dict[str, Any] = answer.json()
        body["detail"] = body["detail"].replace(name, "NAME")
        return body

    assert ask("db") == ask("xy")
    assert ask(hidden["uuid"]) == ask("xy")
    assert rest.supervisor.asked(control.Issue) == 0


def test_a_guest_named_like_the_uuid_of_another_opens_no_door(rest: Rest) -> None:
    # The key covers a guest whose name is db's UUID; the supervisor takes it for db.
    key = rest.key("trick", "????????-*")
    uuid = rest.supervisor.guests[2]["uuid"]
    rest.supervisor.guests.append(fakes.guest(uuid))
    problem(rest.issue(uuid, key), 404, "no_such_guest")
    assert rest.supervisor.tokens == {}
    # And the other way round: the UUID of a covered guest is the name of another one.
    key = rest.key("web", "web-*")
    rest.supervisor.guests.insert(
        0, fakes.guest("evil", "00000000-0000-4000-8000-000000000000") | {"name": "evil"}
    )
    assert rest.issue("web-1", key).status_code == 201
    assert rest.supervisor.last(control.Issue).guest == rest.supervisor.guests[1]["uuid"]


def test_a_token_for_another_guest_than_looked_up_is_taken_back(rest: Rest) -> None:
    key = rest.key("web", "web-*")
    answers = rest.supervisor._issue

    def renamed(request: control.Issue) -> dict[str, Any]:
        return answers(request) | {"guest": "db"}

    rest.supervisor._issue = renamed  # type: ignore[method-assign]
    problem(rest.issue("web-1", key), 404, "no_such_guest")
    assert rest.supervisor.tokens == {}


def test_a_hidden_session_is_answered_like_an_unknown_one(rest: Rest) -> None:
    key = rest.key("web", "web-*")
    for method in ("GET", "DELETE"):
        hidden = rest.ask(method, "/v1/sessions/s-db", key)
        problem(hidden, 404, "no_such_session")
        assert hidden.json() == rest.ask(method, "/v1/sessions/nobody", key).json()
    assert rest.ask("DELETE", "/v1/sessions/s-web", key).status_code == 204
    assert [one["id"] for one in rest.supervisor.sessions] == ["s-db"]


def test_a_limited_key_revokes_only_tokens_of_its_guests(rest: Rest) -> None:
    key = rest.key("web", "web-*")
    rest.supervisor.tokens = {"a": "t-web", "b": "t-db", "c": "t-of-the-command-line"}
    for id_ in ("t-db", "t-of-the-command-line", "nonsense", rest.issue("db").json()["id"]):
        problem(rest.ask("DELETE", f"/v1/tokens/{id_}", key), 404, "no_such_token")
    for id_ in ("t-web", rest.issue("web-1").json()["id"]):
        assert rest.ask("DELETE", f"/v1/tokens/{id_}", key).status_code == 204


def test_a_read_only_key(rest: Rest) -> None:
    key = rest.key("watch", "*", mode="ro")
    assert rest.issue("db", key).json()["mode"] == "ro"
    assert rest.issue("db", key, mode="ro").status_code == 201
    problem(rest.issue("db", key, mode="rw"), 403, "forbidden")
    problem(rest.issue("db", key, mode="ro", takeover=True), 403, "forbidden")
    problem(rest.ask("DELETE", "/v1/sessions/s-db", key), 403, "forbidden")
    problem(rest.ask("DELETE", "/v1/tokens/t-db", key), 403, "forbidden")
    assert rest.supervisor.asked(control.Close) == rest.supervisor.asked(control.Revoke) == 0


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
    for answer in (rest.issue("db"), rest.ask("GET", "/v1/guests"), rest.ask("GET", "/healthz")):
        assert answer.status_code in (500, 503)
        assert answer.headers["content-type"] == "application/problem+json"
        assert "Traceback" not in answer.text


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
    assert answer.json() == {"status": "ok", "libvirt": "ok", "sessions": 2, "version": "0"}


def test_health_without_a_supervisor(run_dir: str) -> None:
    config = fakes.config(run_dir)
    gate = access.Gate(api.build(config), keys.Ring(config.api.keys), {0})

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.get("/healthz")

    detail = problem(asyncio.run(once()), 503, "supervisor_unavailable")
    assert "running" in detail


# ---- OpenAPI


def test_openapi_tells_of_problems_and_keys(rest: Rest) -> None:
    spec = rest.ask("GET", "/openapi.json").json()
    assert set(spec["paths"]) == {
        "/v1/guests/{guest}/tokens",
        "/v1/guests",
        "/v1/guests/{guest}",
        "/v1/sessions",
        "/v1/sessions/{id}",
        "/v1/tokens/{id}",
        "/healthz",
    }
    assert spec["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert spec["security"] == [{"key": []}]
    assert "HTTPValidationError" not in str(spec)
    for path, item in spec["paths"].items():
        for operation in item.values():
            assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
            assert operation.get("security") == ([] if path == "/healthz" else None)
    token = spec["components"]["schemas"]["Token"]["properties"]
    assert token["expires_at"]["description"] == "RFC 3339, UTC."
    assert not spec["components"]["schemas"]["TokenRequest"]["additionalProperties"]
