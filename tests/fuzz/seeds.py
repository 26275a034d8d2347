"""Right inputs, of which wrong ones are made."""

from __future__ import annotations

import json
from typing import Any

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
SESSION: dict[str, Any] = {
    "id": "0a", "guest": "web", "uuid": UUID, "console": "serial0", "mode": "rw", "user": "u",
    "client": "192.0.2.1:1", "opened_at": 1.5, "gateway_pid": 7, "gateway_uid": 7, "token_id": "t",
    "resume": {"seconds": 1, "digest": "00", "client_address": None},
}  # fmt: skip
FIGURES = {
    "session": "0a", "state": "connected", "idle": 0.5, "bytes_in": 1, "bytes_out": 2, "skipped": 0,
}  # fmt: skip
GUEST = {
    "name": "web",
    "uuid": UUID,
    "state": "running",
    "consoles": [{"alias": "serial0", "type": "pty", "supported": True}],
}


def message(op: str, **fields: Any) -> bytes:
    return json.dumps({"v": 1, "op": op, **fields}).encode()


REDEEM_SEEDS = (message("redeem", token="x" * 43, client="192.0.2.1:1", events=False),)
ADMIN_SEEDS = (
    message("issue", guest="web", user="u", mode="ro", console="serial0", ttl=3, takeover=False,
             notices=None, replay=1, escape="ctrl-q", client_address="192.0.2.1", resume=0),
    message("issue", guest=UUID),
    message("revoke", id="00"),
    message("guests", after=""),
    message("guest", guest="web"),
    message("sessions", after=""),
    message("session", id="0a"),
    message("close", id="0a", by="u"),
    message("health"),
)  # fmt: skip
OTHER_SEEDS = (
    message("admit", session=SESSION, events=True, takeover=False, notices=True, replay=1,
             escape="\x11"),
    message("end", code=1000, reason="over", session=None),
    message("query"),
    message("ready"),
    message("failed", code="in_use", message="x", id=1),
    message("admitted", session="0a"),
    message("opened", session="0a", again=False),
    message("closed", code=1000, reason="over", client=FIGURES),
    message("report", clients=[FIGURES]),
    message("adopt", guest="web", uuid=UUID, console="serial0", path="/x", sessions=[SESSION]),
    message("lookup", id=1, guest="web"),
    message("scan", id=1),
    message("probe", id=1),
    message("found", id=1, guest=GUEST, last=True),
)  # fmt: skip
EVENT_SEEDS = (
    message("state", state="connected", text="connected"),
    message("skipped", bytes=1),
    message("held", bytes=1),
    message("end", code=4410, reason="bob has taken over"),
)
BACK_SEEDS = (message("taking", pause=0.5), message("delivered", bytes=1))
ANSWER = json.dumps({"v": 1, "ok": True, "path": "/run/console/web.sock", "session": "0a"})
REFUSAL = json.dumps({"v": 1, "ok": False, "code": "in_use", "message": "no", "close": 4409})
CONFIG = """# all of it
[libvirt]
uri = "qemu:///system"
[paths]
consoles = "/c"
control = "/d"
api = "/a"
[gateway]
listen = "127.0.0.1:6083"
public_url = "https://host.example/console"
allowed_origins = ["https://x.example"]
heartbeat = 10
[api]
listen = "[::1]:6084"
peer_uids = [1, 2]
[tokens]
ttl = 30
store = "memory"
[session]
escape = "ctrl-q"
idle_timeout = 600
notices = true
replay = 65536
[limits]
sessions = 1000
[log]
level = "info"
"""
KEY = json.dumps(
    {"name": "k", "guests": ["web-*"], "mode": "rw", "sha256": "9f" * 32, "created": "2025"}
)


def _answer(**fields: Any) -> bytes:
    return json.dumps({"v": 1, "ok": True, **fields}).encode() + b"\n"


GUEST_ANSWER = _answer(**GUEST, sessions=["0a"])
SESSION_ANSWER = _answer(**SESSION, **FIGURES, relay_pid=7)
ISSUED = _answer(
    id="t", token="x" * 43, guest="web", uuid=UUID, console="serial0", mode="rw", user="u",
    expires_at=1.5e9,
)  # fmt: skip
LISTING = _answer(guests=[GUEST], next="")
GUEST_XML = (
    b"<domain><devices><serial type='tcp'><source mode='bind' host='::' service='10000' tls='no'/>"
    b"<protocol type='telnet'/><target port='0'/><alias name='serial0'/></serial>"
    b"<console type='tcp'><source mode='bind' host='::' service='10000'/><target type='serial'/>"
    b"<alias name='serial0'/></console></devices>"
    b"<seclabel model='dac'><label>+107:+107</label></seclabel></domain>",
    b"<domain><devices><serial type='unix'><source mode='bind' path='/a'/></serial><console "
    b"type='pty'><target type='virtio'/></console><serial type='null'/></devices></domain>",
)
