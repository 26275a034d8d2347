"""REST: who may do what, and that nobody learns of what is not theirs."""

from __future__ import annotations

from typing import Any

import pytest

from serial_console import control, keys

from .. import fakes
from .rest import Rest, problem


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
