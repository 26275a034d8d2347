"""REST: who may do what, and that nobody learns of what is not theirs."""

from __future__ import annotations

from typing import Any

import pytest

from serial_console import access, control, keys, rate, reporter

from .. import fakes, rig
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
    assert rest.supervisor.asked(control.Close) == 0
    rest.ask("DELETE", "/v1/tokens/t-db", key)
    assert rest.supervisor.last(control.Revoke) == control.Revoke(id="t-db", own=True, key="watch")


def test_a_read_only_key_in_nova_s_shape(rest: Rest) -> None:
    asked = {"remote_console": {"protocol": "serial", "type": "serial"}}
    path = "/v1/guests/web-1/remote-consoles"
    assert rest.ask("POST", path, rest.key("watch", "*", mode="ro"), json=asked).is_success
    assert rest.supervisor.last(control.Issue).mode == "ro"
    problem(rest.ask("POST", path, rest.key("db", "db"), json=asked), 404, "no_such_guest")


@pytest.mark.parametrize(
    ("glob", "name", "covered"),
    [
        ("web-*", "WEB-1", False),
        ("web-[12]", "web-1", True),
        ("web-[12]", "web-[12]", False),
        ("web-[[]12]", "web-[12]", True),
        ("web-?", "web-12", False),
        ("*", "any/../thing", True),
        ("web-*", "web-\n", True),
        ("web", "web\n", False),
    ],
)
def test_globs_hold_for_issuing(rest: Rest, glob: str, name: str, covered: bool) -> None:
    rest.supervisor.guests = [fakes.guest(name)]
    key = rest.key("some", glob)
    for asked in name, rest.supervisor.guests[0]["uuid"]:
        answer = rest.issue(asked, key)
        if covered:
            assert answer.status_code == 201
        else:
            problem(answer, 404, "no_such_guest")


@pytest.mark.parametrize("change", ["revoked", "made anew", "narrowed", "broken"])
def test_a_key_that_is_revoked_while_its_token_is_made_gets_none(rest: Rest, change: str) -> None:
    path = rest.config.api.keys
    key = rest.key("web", "*")
    answers = rest.supervisor._issue

    def meanwhile(request: control.Issue) -> dict[str, Any]:
        if change == "broken":
            with open(path, "a") as file:
                file.write("broken\n")
        elif change == "narrowed":
            with open(path) as file:
                text = file.read()
            with open(path, "w") as file:
                file.write(
                    text.replace('"name":"web","guests":["*"]', '"name":"web","guests":["d"]')
                )
        else:
            keys.revoke(path, "web")
        if change == "made anew":
            keys.add(path, "web")
        return answers(request)

    rest.supervisor._issue = meanwhile  # type: ignore[method-assign]
    problem(rest.issue("db", key), 401, "unauthorized")
    assert rest.supervisor.tokens == {}


# ---- how often


def test_each_caller_has_a_rate_of_its_own(rest: Rest) -> None:
    rest.gated(rate=2)
    other = rest.key("other", "*")
    for _ in range(4):
        assert rest.ask("GET", "/v1/guests").status_code == 200
    answer = rest.ask("GET", "/v1/guests")
    assert "api.rate" in problem(answer, 429, "rate_limited")
    assert answer.headers["retry-after"] == "1"
    assert rest.ask("GET", "/v1/guests", other).status_code == 200
    rest.now += 0.5
    assert rest.ask("GET", "/v1/guests").status_code == 200
    problem(rest.ask("GET", "/v1/guests"), 429, "rate_limited")


def test_who_guesses_is_slowed_and_keeps_no_good_key_out(rest: Rest) -> None:
    rest.gated(rate=2)
    for _ in range(4):
        problem(rest.ask("GET", "/v1/guests", "wrong"), 401, "unauthorized")
    for _ in range(20):
        problem(rest.ask("GET", "/v1/guests", "wrong"), 429, "rate_limited")
        problem(rest.ask("GET", "/v1/guests", key=None), 429, "rate_limited")
    assert rest.ask("GET", "/v1/guests").status_code == 200
    assert rest.ask("GET", "/healthz", key=None).status_code == 200
    events = [(one.event, one.key, one.status) for one in rest.told]
    assert events == [
        *[("api_unauthorized", "", 401)] * 4,
        ("api_rate_limited", "", 429),
        ("api_request", "all", 200),
    ]


def test_who_asks_without_end_and_without_a_key_cannot_fill_the_disk(rest: Rest) -> None:
    rest.gated(rate=0)
    for _ in range(100):
        rest.ask("GET", "/v1/guests", "wrong")
    assert len(rest.told) == access.STRANGERS * rate.BURST
    rest.ask("GET", "/v1/guests")
    assert (rest.told[-1].event, rest.told[-1].left_out) == ("api_request", 0)
    rest.now += 1
    rest.ask("GET", "/v1/guests", "wrong")
    assert (rest.told[-1].event, rest.told[-1].left_out) == ("api_unauthorized", 90)


def test_no_rate_is_no_limit(rest: Rest) -> None:
    rest.gated(rate=0)
    assert {rest.ask("GET", "/v1/guests", "wrong").status_code for _ in range(100)} == {401}


def test_buckets_are_bounded_and_refill_to_the_brim_only() -> None:
    now = 0.0
    buckets = rate.Buckets(10, lambda: now)
    for number in range(5 * rate.NAMES):
        assert buckets.take(f"{number}") == 0
    assert len(buckets) == rate.NAMES
    now = 1e6
    taken = [buckets.take("0") for _ in range(21)]
    assert taken[:20] == [0.0] * 20
    assert taken[20] == pytest.approx(0.1)


# ---- what is told to the audit log


def test_every_use_of_a_key_is_told_without_what_was_asked_for(rest: Rest) -> None:
    key = rest.key("watch", "web-*", mode="ro")
    rest.ask("GET", "/v1/guests/db?key=s3cret", key)
    rest.ask("DELETE", "/v1/sessions/s3cret", key)
    rest.ask("GET", "/s3cret", key)
    rest.ask("GET", "/healthz", key=None)
    rest.ask("S" * 5000, "/v1/guests", "s3cret")
    assert "s3cret" not in str(rest.told)
    assert [(one.event, one.key, one.method, one.route, one.status) for one in rest.told] == [
        ("api_request", "watch", "GET", "/v1/guests/{guest}", 404),
        ("api_forbidden", "watch", "DELETE", "/v1/sessions/{id}", 403),
        ("api_request", "watch", "GET", "(no route)", 404),
        ("api_unauthorized", "", "(other)", "(no route)", 401),
    ]
    assert rest.told[0].source == "127.0.0.1"


def test_a_supervisor_that_hangs_or_is_gone_costs_events_and_nothing_else(run_dir: str) -> None:
    path = f"{run_dir}/admin.sock"
    event = control.Audit(event="api_request", key="all")
    one = reporter.Reporter(path)
    one.start()
    one.tell(event)  # nobody listens
    assert rig.eventually(lambda: one._unsent == 1)
    with fakes.FakeSupervisor(run_dir) as supervisor:
        one.tell(event)
        one.close()
        assert [told.left_out for told in supervisor.requests] == [1]  # type: ignore[attr-defined]
    full = reporter.Reporter(path)  # its thread never takes anything
    for _ in range(reporter.WAITING + 5):
        full.tell(event)
    assert full._unqueued == 5
    full.close()
