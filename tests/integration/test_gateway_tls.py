"""TLS at the gateway: what it speaks, what it refuses, and a certificate that is renewed."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import warnings

import pytest
from websockets.exceptions import InvalidStatus

from tests import certs, rig, stack
from tests.clients import Terminal


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate and its key."""
    return certs.make(tmp_path_factory.mktemp("certs"))


class Tls:
    """Supervisor and gateway with TLS, and clients that trust its certificate."""

    def __init__(self, make_stack, pair):
        self.pair = pair
        self.stack = make_stack(
            "supervisor", "gateway", gateway={"tls_cert": pair[0], "tls_key": pair[1]}
        )
        self.log = self.stack.services["gateway"].logged

    def client(self, cert=None, **versions):
        context = ssl.create_default_context(cafile=cert or self.pair[0])
        context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.1
            for name, version in versions.items():
                setattr(context, name, version)
        return context

    def handshake(self, context):
        """Return the TLS socket of a new connection, which the caller closes."""
        plain = socket.create_connection(("127.0.0.1", self.stack.gateway_port), timeout=10)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def served(self):
        """Return the certificate that a new connection is shown."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with self.handshake(context) as sock:
            return ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True))

    def connect(self, token, **options):
        url = f"wss://127.0.0.1:{self.stack.gateway_port}/websockify?token={token}"
        return Terminal(url, ssl=self.client(), **options)


@pytest.fixture
def tls(make_stack, pair):
    return Tls(make_stack, pair)


def test_what_is_spoken_and_what_is_not(tls):
    spoken, refused = {}, {}
    old, new = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, old, new):
        context = tls.client(minimum_version=version, maximum_version=version)
        try:
            with tls.handshake(context) as sock:
                spoken[sock.version()] = (sock.cipher()[0], sock.compression())
                assert sock.session is None or not sock.session.has_ticket
        except ssl.SSLError as error:
            refused[version.name] = error.reason
    assert set(spoken) == {"TLSv1.2", "TLSv1.3"}
    assert refused == dict.fromkeys(["TLSv1", "TLSv1_1"], "TLSV1_ALERT_PROTOCOL_VERSION")
    for cipher, compression in spoken.values():
        assert compression is None
        assert "GCM" in cipher or "CHACHA20" in cipher

    weak = tls.client(maximum_version=old)
    names = [one["name"] for one in weak.get_ciphers() if one["protocol"] != "TLSv1.3"]
    taken = set()
    for name in names:
        weak.set_ciphers(f"{name}:@SECLEVEL=0")
        with contextlib.suppress(ssl.SSLError), tls.handshake(weak) as sock:
            taken.add(sock.cipher()[0])
    print(f"{len(names)} ciphers of TLS 1.2 and older offered, {sorted(taken)} taken")
    assert len(names) > 30
    assert taken == {
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-CHACHA20-POLY1305",
    }
    # The gateway chooses, not the client.
    context = tls.client(maximum_version=old)
    context.set_ciphers("ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES256-GCM-SHA384")
    with tls.handshake(context) as sock:
        assert sock.cipher()[0] == "ECDHE-RSA-AES256-GCM-SHA384"
    assert "Traceback" not in tls.log()


def test_a_client_cannot_have_keys_negotiated_again(tls):
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{tls.stack.gateway_port}", "-tls1_2"]
    done = subprocess.run(command, input="R\n", capture_output=True, text=True, timeout=20)
    assert "RENEGOTIATING" in done.stdout + done.stderr
    assert "no renegotiation" in done.stderr


def test_a_session_and_the_page_behind_tls(tls, echo_guest):
    port = tls.stack.gateway_port
    token = tls.stack.token(echo_guest.uuid)
    with pytest.raises(InvalidStatus) as refused:
        tls.connect(token, origin=f"http://127.0.0.1:{port}")
    assert refused.value.response.status_code == 403
    with tls.connect(token, origin=f"https://127.0.0.1:{port}") as terminal:
        terminal.send(b"x" * 10_000)
        terminal.read_until(b"x" * 10_000)


def test_plain_http_is_told_so_and_loses_no_token(tls, echo_guest):
    token = tls.stack.token(echo_guest.uuid)
    status, headers, body = stack.http(
        tls.stack.gateway_port,
        "GET",
        f"/websockify?token={token}",
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    )
    assert status == 400
    assert b"https://" in body
    assert "content-security-policy" in headers
    assert token not in tls.log()
    with tls.connect(token) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")


def test_tls_at_a_plain_port_is_refused_in_words(shared):
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", shared.gateway_port), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    log = shared.services["gateway"].logged
    assert rig.eventually(lambda: "there is no gateway.tls_cert" in log())
    assert "Traceback" not in log()


def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(make_stack, echo_guest, tmp_path):
    files = [str(tmp_path / "live.pem"), str(tmp_path / "live.key")]
    pairs = {name: certs.make(tmp_path, name) for name in ("first", "second", "third")}

    def install(cert, key):
        """As certbot does: links that lead elsewhere from now on."""
        for target, path in ((cert, files[0]), (key, files[1])):
            os.symlink(target, f"{path}.new")
            os.replace(f"{path}.new", path)

    def pem(name):
        with open(pairs[name][0]) as file:
            return file.read()

    install(*pairs["first"])
    tls = Tls(make_stack, files)
    with tls.connect(tls.stack.token(echo_guest.uuid)) as terminal:

        def goes_on(data):
            terminal.send(data)
            terminal.read_until(data)

        goes_on(b"before")
        assert tls.served() == pem("first")
        install(*pairs["second"])
        assert tls.served() == pem("second")
        goes_on(b"renewed")

        install(pairs["third"][0], pairs["second"][1])
        for _ in range(3):
            assert tls.served() == pem("second")
        goes_on(b"broken")
        assert tls.log().count("key values mismatch; the former one is still used") == 1
        os.unlink(files[0])
        assert tls.served() == pem("second")
        assert "No such file or directory; the former one is still used" in tls.log()

        install(*pairs["third"])
        os.kill(tls.stack.pid("gateway"), signal.SIGHUP)
        again = f"certificate {files[0]} was read again"
        assert rig.eventually(lambda: tls.log().count(again) == 2)
        assert tls.served() == pem("third")
        goes_on(b"after")
        assert len(tls.stack.wait_sessions("connected")) == 1
    assert "Traceback" not in tls.log()


def test_an_expired_certificate_is_warned_of(make_stack, tmp_path):
    tls = Tls(make_stack, certs.make(tmp_path, since="2020-01-01"))
    assert "2020" not in tls.log()
    assert "warning" in tls.log()
    assert "browsers will refuse" in tls.log()
    assert "certificate has expired" in tls.log()
    with open(tls.pair[0]) as file:
        assert tls.served() == file.read()


@pytest.mark.parametrize("what", ["mismatch", "no certificate", "no key", "locked", "nothing"])
def test_what_cannot_be_used_is_said_in_a_line(make_stack, tmp_path, pair, what):
    cert, key = pair
    other = certs.make(tmp_path, "other", phrase="secret" if what == "locked" else "")
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    files = {
        "mismatch": (cert, other[1]),
        "no certificate": (str(wrong), key),
        "no key": (cert, str(wrong)),
        "locked": tuple(other),
        "nothing": (cert, str(tmp_path / "nothing")),
    }[what]
    stack = make_stack(
        gateway={"tls_cert": files[0], "tls_key": files[1]}, log={"level": "warning"}
    )
    done = stack.cli("gateway")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert files[1] in done.stderr
    assert "gateway.tls_cert" in done.stderr
