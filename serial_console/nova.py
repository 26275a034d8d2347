"""nova's shape of REST, as OpenStack's clients know it: a console's URL for a server (a guest).

They ask below PREFIX: from an address that ends so openstacksdk knows which API it meets. What they
send is recorded in tests/recorded/nova. Refusals are nova's faults there: novaclient breaks on
problem documents.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

PREFIX = "/v2.1"
KEY_HEADER = b"x-auth-token"
"""Where OpenStack's clients put their token; here it is an API key."""
MICROVERSIONS = "2.6", "2.8"
"""The first that has remote-consoles, and the last before 2.99 in which they changed."""
HEADERS = {
    "OpenStack-API-Version": f"compute {MICROVERSIONS[1]}",
    "X-OpenStack-Nova-API-Version": MICROVERSIONS[1],
}
"""Of an answer; without them novaclient warns that it may be wrong."""


class SerialConsole(BaseModel):
    """What nova's clients ask for; other protocols are not for this service."""

    protocol: Literal["serial"]
    type: Literal["serial"]


class RemoteConsoleRequest(BaseModel):
    """nova's request for a console."""

    remote_console: SerialConsole


class RemoteConsole(SerialConsole):
    """nova's answer; ``url`` is a WebSocket URL with a token in it."""

    url: str


class RemoteConsoleAnswer(BaseModel):
    """nova's envelope."""

    remote_console: RemoteConsole


def version() -> dict[str, Any]:
    """Return what openstacksdk reads first, and without a key: which microversions there are."""
    first, last = MICROVERSIONS
    return {
        "version": {
            "id": "v2.1",
            "status": "CURRENT",
            "min_version": first,
            "version": last,
            "links": [{"rel": "self", "href": PREFIX}],
        }
    }


def is_for(path: str) -> bool:
    """Whether a path is one of nova's, and its errors are to be faults."""
    return path.startswith(f"{PREFIX}/")


def fault(status: int, message: str) -> dict[str, Any]:
    """Return an error as nova has it. Clients look at no more than status and message."""
    return {"computeFault": {"code": status, "message": message}}


FAULT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Fault",
    "description": "What was wrong, why, and what to do, as nova says it.",
    "required": ["computeFault"],
    "properties": {
        "computeFault": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "message": {"type": "string", "description": "A sentence fit to show."},
            },
        }
    },
}
