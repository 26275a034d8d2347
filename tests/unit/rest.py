"""REST's application in front of a FAKE supervisor, and how its answers are checked."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from serial_console import access, api, control, keys
from serial_console.config import Config
from serial_console.reload import Current

from .. import fakes


class Rest:
    """The application, its FAKE supervisor, and a client of it."""

    def __init__(self, config: Config, supervisor: fakes.FakeSupervisor) -> None:
        self.config = config
        self.supervisor = supervisor
        self.app: FastAPI = api.build(Current(config))
        self.told: list[control.Audit] = []
        self.now = 0.0
        self.gate = self.gated()
        self.secret = keys.add(config.api.keys, "all")

    def gated(self, rate: float = 0) -> access.Gate:
        """The application behind a gate that is asked by ``ask`` from now on."""
        ring = keys.Ring(self.config.api.keys)
        self.gate = access.Gate(self.app, ring, {0}, rate, self.told.append, lambda: self.now)
        return self.gate

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
