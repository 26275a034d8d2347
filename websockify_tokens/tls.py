"""TLS: which versions and ciphers, and a certificate that is renewed while we run."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and AEAD only (RFC 9325; TLS 1.3 has no others)."""
_ROUNDS = 8
"""Turns of a handshake in memory; it takes three."""


class CertificateError(Exception):
    """The certificate or its key cannot be used; the message says why, and names the files."""


class Certificate:
    """A certificate and its key in PEM files, read again when they change.

    Raises:
        CertificateError: they cannot be used.
    """

    def __init__(self, cert: str, key: str, log: logging.Logger) -> None:
        self._paths = cert, key
        self._log = log
        self._seen = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection.

        Files that changed are read; while they cannot be used, the former ones are.
        """
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = self._load()
                self._log.info("the certificate %s was read again", self._paths[0])
            except CertificateError as error:
                self._log.error("%s; the former one is still used", error)
        return self._context

    def _look(self) -> list[tuple[int, int, int]]:
        """Return what tells of each file whether it changed, through links (certbot's)."""
        found = []
        for path in self._paths:
            try:
                status = os.stat(path)
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append((0, 0, 0))
        return found

    def _load(self) -> ssl.SSLContext:
        cert, key = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        # A ticket's key would live as long as we do, and with it what it protects.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Else OpenSSL would ask for it on the terminal.
            context.load_cert_chain(cert, key, password=lambda: b"")
            flaw = _flaw(context, cert)
        except ssl.SSLError as error:
            why = (error.reason or "no PEM files").replace("_", " ").lower()
            raise CertificateError(f"cannot use {cert} with the key {key}: {why}") from None
        except OSError as error:
            name = next((path for path in self._paths if not os.access(path, os.R_OK)), cert)
            raise CertificateError(f"cannot read {name}: {error.strerror}") from None
        if flaw:
            self._log.warning("browsers will refuse the certificate %s: %s", cert, flaw)
        return context


def peer(context: ssl.SSLContext, cert: str, flags: int = 0) -> dict[str, object]:
    """Return what a client is shown of a certificate, in the form of ssl's ``getpeercert()``.

    Only a client is told by Python's ssl, and only after it has verified: so a handshake in memory
    with a client that believes this certificate.

    Args:
        context: the server's, with the certificate.
        cert: the path of its PEM file.
        flags: how the client verifies it, the default besides: ``X509_V_FLAG_...`` of OpenSSL's.

    Raises:
        ssl.SSLCertVerificationError: the client refuses it nevertheless, as when it has expired.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(flags)
    client.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    sides = [ours, context.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(_ROUNDS):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return dict(ours.getpeercert() or {})


def _flaw(context: ssl.SSLContext, cert: str) -> str | None:
    """Return why a client that trusts this certificate refuses it (it has expired), or None."""
    try:
        peer(context, cert)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    return None
