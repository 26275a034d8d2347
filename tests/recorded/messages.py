"""What this release writes on the sockets: ``python -m tests.recorded.messages`` records it.

A release keeps its file for ever; ``tests/unit/test_versions.py`` reads those of all releases that
the present one has to speak with. Run it when a message has changed before the release.
"""

from __future__ import annotations

import json
import pathlib
import socket
import tempfile
import threading

from serial_console import __version__, control
from websockify_tokens.client import Redemption

HERE = pathlib.Path(__file__).parent
FILE = HERE / f"v{__version__}" / "messages.jsonl"

SESSION = control.SessionInfo(
    id="0123456789ab",
    guest="web-1",
    uuid="7d6b6a9e-8d0d-4d0f-9c3c-0f4f8a4f2b11",
    console="serial0",
    mode="rw",
    user="alice",
    client="192.0.2.7:40001",
    opened_at=1763856000.5,
    gateway_pid=100,
    gateway_uid=991,
    token_id="t0123456789",
    resume=control.Resume(seconds=60, digest="00" * 32, client_address=None),
    key="manager",
)
FIGURES = control.ClientInfo(
    session=SESSION.id,
    state="connected",
    idle=1.5,
    bytes_in=10,
    bytes_out=2000,
    skipped=0,
    held=0,
    memory=2_000_000,
    cpu=0.25,
)
TO_SUPERVISOR = [
    control.Issue(
        guest="web-1",
        user="alice",
        mode="rw",
        console="serial0",
        ttl=30,
        takeover=True,
        notices=True,
        replay=0,
        escape="ctrl-q",
        client_address="192.0.2.7",
        resume=60,
        by="root",
        key="manager",
    ),
    control.Revoke(id="t0123456789", own=True, by="root", key="manager"),
    control.RevokeKey(key="manager", close=True, by="root"),
    control.ListGuests(after="web-0"),
    control.GetGuest(guest="web-1"),
    control.ListSessions(after="0"),
    control.GetSession(id=SESSION.id),
    control.Close(id=SESSION.id, by="root", key="manager"),
    control.Health(),
    control.Metrics(),
    control.Audit(
        event="api_request",
        key="manager",
        by="root",
        source="127.0.0.1",
        method="GET",
        route="/v1/guests",
        status=200,
        left_out=1,
    ),
    control.AuditHead(),
]
TO_RELAY = [
    control.Admit(
        session=SESSION,
        events=True,
        shows_events=True,
        after=control.After("relay", "session", 5),
        replaces="old",
        takeover=True,
        notices=False,
        replay=65536,
        escape="ctrl-q",
    ),
    control.End(code=4411, reason="Closed by the operator.", session=SESSION.id),
    control.Query(),
]
FROM_RELAY = [
    control.Ready(),
    control.Failed(code="libvirt_unavailable", message="libvirt does not answer"),
    control.Admitted(session=SESSION.id),
    control.Opened(session=SESSION.id, again=True),
    control.Closed(code=1000, reason="The guest ended.", client=FIGURES, taker="other"),
    control.Reconnected(),
    control.Report(clients=[FIGURES]),
    control.Adopt(
        guest="web-1",
        uuid=SESSION.uuid,
        console="serial0",
        path="/run/console/web-1.sock",
        sessions=[SESSION],
        version=__version__,
    ),
]
FROM_GATEWAY = [
    control.Taking(pause=0.5),
    control.Delivered(bytes=1000, reason="vanished", left=True),
]


def redeemed(**options: bool | str) -> bytes:
    """Return the request that our gateway, or the plugin in a stock websockify, sends."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/redeem.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            sent: list[bytes] = []

            def answer() -> None:
                connection, _ = listener.accept()
                with connection, connection.makefile("rwb") as file:
                    sent.append(file.readline())
                    file.write(b'{"v": 1, "ok": true, "path": "/run/console/web-1.sock"}\n')

            thread = threading.Thread(target=answer)
            thread.start()
            _, back = Redemption(path, "x" * 43, **options).answer()  # type: ignore[arg-type]
            back.close()
            thread.join()
    return sent[0].strip()


def lines() -> dict[str, list[str]]:
    """Return what is written, by who reads it."""
    gateway = redeemed(client="192.0.2.7:40001", events=True, shows_events=True, after="a.b.1")
    return {
        "supervisor from gateway": [gateway.decode(), redeemed().decode()],
        "supervisor from api": [control.encode(one).decode().strip() for one in TO_SUPERVISOR],
        "relay from supervisor": [control.encode(one).decode().strip() for one in TO_RELAY],
        "supervisor from relay": [control.encode(one).decode().strip() for one in FROM_RELAY],
        "relay from gateway": [control.encode(one).decode().strip() for one in FROM_GATEWAY],
    }


def main() -> None:
    """Write this release's file."""
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("w", encoding="utf-8") as file:
        for to, written in lines().items():
            for line in written:
                file.write(json.dumps({"to": to, "line": line}) + "\n")


if __name__ == "__main__":
    main()
