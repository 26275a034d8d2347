"""REST in nova's shape, asked by the recorded requests of OpenStack's clients."""

from __future__ import annotations

import json
import pathlib
import socket
from http.client import HTTPResponse
from typing import Any

import pytest

from serial_console import keys

from .. import fakes
from .rest import Rest, problem
from .test_api_server import Server, start

RECORDED = pathlib.Path(__file__).parents[1] / "recorded" / "nova"
CONSOLES = ["novaclient-18.13.1.http", "openstacksdk-4.22.0.http"]
VERSION = "openstacksdk-4.22.0-version.http"


def replayed(server: Server, name: str, key: str) -> tuple[HTTPResponse, Any]:
    """Send a recorded request's bytes with this key; return the answer and its JSON."""
    request = (RECORDED / name).read_bytes().replace(b"API-KEY", key.encode())
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=20) as sock:
        sock.sendall(request)
        with HTTPResponse(sock) as answer:
            answer.begin()
            return answer, json.loads(answer.read())


def test_what_novaclient_and_openstacksdk_sent(run_dir: str, tmp_path: pathlib.Path) -> None:
    api_keys = str(tmp_path / "api-keys")
    key = keys.add(api_keys, "openstack")
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.guests = [fakes.guest("web-1")]
        server = start(run_dir, api_keys)
        try:
            answer, said = replayed(server, VERSION, key)  # it has no key in it
            assert answer.status == 200
            assert said["version"]["id"] == "v2.1"
            assert said["version"]["min_version"] == "2.6"
            for name in CONSOLES:
                answer, said = replayed(server, name, key)
                assert answer.status == 200, said
                url = said["remote_console"].pop("url")
                assert url.startswith("ws://127.0.0.1:6083/websockify?token=secret-")
                assert said == {"remote_console": {"protocol": "serial", "type": "serial"}}
                # novaclient warns where these are not; which one, depends on its version.
                assert answer.headers["OpenStack-API-Version"] == "compute 2.8"
                assert answer.headers["X-OpenStack-Nova-API-Version"] == "2.8"
                answer, said = replayed(server, name, "no-key")
                assert answer.status == 401
                assert "unknown or revoked" in fault(said, 401)
        finally:
            server.end()
        assert key not in server.log
        assert "secret-" not in server.log


def fault(said: Any, status: int) -> str:
    """Assert that it is nova's fault as novaclient reads it, and return its message."""
    (error,) = said.values()
    assert error["code"] == status
    message: str = error["message"]
    return message


PATH = "/v2.1/servers/{}/remote-consoles"
ASKED = {"remote_console": {"protocol": "serial", "type": "serial"}}


def test_a_refusal_is_nova_s_fault(rest: Rest) -> None:
    answer = rest.ask("POST", PATH.format("nobody"), json=ASKED)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert 'no guest "nobody"' in fault(answer.json(), 404)
    vnc = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    assert "serial" in fault(rest.ask("POST", PATH.format("db"), json=vnc).json(), 422)
    answer = rest.ask("GET", PATH.format("db"))
    assert answer.headers["allow"] == "POST"
    assert fault(answer.json(), 405)
    answer = rest.ask("POST", PATH.format("db"), key=None, json=ASKED)
    assert answer.headers["www-authenticate"] == 'Bearer realm="serial-console"'
    assert "API key is needed" in fault(answer.json(), 401)


def test_a_key_as_openstack_s_token_is_for_nova_s_paths_alone(rest: Rest) -> None:
    def ask(path: str, **headers: str) -> Any:
        return rest.ask("POST", path, key=None, headers=headers, json=ASKED)

    limited = rest.key("web", "web-*")
    nova, ours = PATH.format("db"), "/v1/guests/db/remote-consoles"
    assert ask(nova, **{"X-Auth-Token": rest.secret}).status_code == 200
    assert ask(nova, **{"X-Auth-Token": limited}).status_code == 404
    problem(ask(ours, **{"X-Auth-Token": rest.secret}), 401, "unauthorized")
    both = {"X-Auth-Token": rest.secret, "Authorization": f"Bearer {limited}"}
    assert ask(nova, **both).status_code == 404, "the key in Authorization counts"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_the_version_document_can_only_be_read(rest: Rest, method: str) -> None:
    problem(rest.ask(method, "/v2.1", key=None), 405, "method_not_allowed")
