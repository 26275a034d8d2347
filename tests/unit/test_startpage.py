"""The start page's files: served to anyone, with a strict policy, and nothing beside them."""

from __future__ import annotations

import os
import re

import pytest

from serial_console import startpage

from .rest import Rest, problem

FILES = sorted(startpage.files())


def test_all_of_the_page_is_there_and_names_nothing_else() -> None:
    """Relative, so that it works behind a path prefix; nothing inline, which the policy forbids."""
    served = {path.removeprefix("/") or "index.html" for path in FILES}
    assert served == {"palette.css", *os.listdir(startpage.DIRECTORY)}
    named = {"index.html"}
    for _, content in startpage.files().values():
        text = content.decode()
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=|innerHTML|localStorage", text)
        named |= set(re.findall(r"""(?:src=|href=|from )["'](?!data:)(?:\./)?([^"']+)""", text))
    assert named == served


@pytest.mark.parametrize("path", FILES)
def test_each_file_needs_no_key_and_costs_no_audit_line(rest: Rest, path: str) -> None:
    answer = rest.ask("GET", path, key=None)
    kind, content = startpage.files()[path]
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-type"] == kind
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers.get_list("cache-control") == ["no-cache"]
    head = rest.ask("HEAD", path, key=None)
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(content))
    assert problem(rest.ask("POST", path, key=None), 405, "method_not_allowed")
    assert rest.told == []


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/start.js/",
        "/START.JS",
        "/%2fstart.js",
        "/x/../start.js",
        "/%2e%2e/serial.js",
        "/start.js%00",
        "/start/start.js",
        "/..%2fserial.html",
        "/v1/../start.js",
    ],
)
def test_nothing_else_is_reachable_without_a_key(rest: Rest, path: str) -> None:
    if path in ("/x/../start.js", "/v1/../start.js"):
        path = path.replace("..", "%2e.")  # the client would resolve it
    problem(rest.ask("GET", path, key=None), 401, "unauthorized")
    problem(rest.ask("GET", path), 404, "not_found")


def test_it_is_no_part_of_the_interface(rest: Rest) -> None:
    assert set(FILES).isdisjoint(rest.ask("GET", "/openapi.json").json()["paths"])


def test_who_loads_it_without_end_is_slowed(rest: Rest) -> None:
    rest.gated(rate=10)
    statuses = [rest.ask("GET", "/", key=None).status_code for _ in range(30)]
    assert statuses == [200] * 20 + [429] * 10
    assert rest.ask("GET", "/v1/guests").status_code == 200
