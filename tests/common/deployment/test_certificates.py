"""Certificates: names, purpose, what an authority may sign, and that an expired or foreign one is refused."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from common.deployment.certificates import (
    AUTHORITY_DAYS,
    Certificate,
    authority,
    expires,
    fingerprint,
    server_certificate,
)

ROOT = authority("trial")


def handshake(folder: Path, server: Certificate, name: str, *, trusted: bytes = ROOT.certificate) -> str:
    """What a client that trusts one authority says of a server: empty, or the reason it refuses."""
    (folder / "server.pem").write_bytes(server.certificate + server.key)
    offering = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    offering.load_cert_chain(folder / "server.pem")
    asking = ssl.create_default_context(cadata=trusted.decode())
    one, other = socket.socketpair()

    def serve() -> None:
        try:
            offering.wrap_socket(other, server_side=True).close()
        except (ssl.SSLError, OSError):
            other.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        asking.wrap_socket(one, server_hostname=name).close()
        return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    finally:
        one.close()
        thread.join()


def test_every_name_that_sites_use_is_accepted_and_no_other(tmp_path: Path) -> None:
    made = server_certificate(ROOT, ["coordinator.example", "192.0.2.7", "::1"])
    for name in ("coordinator.example", "192.0.2.7", "::1"):
        assert handshake(tmp_path, made, name) == ""
    assert "mismatch" in handshake(tmp_path, made, "other.example")
    assert "mismatch" in handshake(tmp_path, made, "192.0.2.8")
    names = x509.load_pem_x509_certificate(made.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.IPAddress)[0] == ipaddress.ip_address("192.0.2.7")


def test_expired_and_foreign_certificates_are_refused(tmp_path: Path) -> None:
    expired = server_certificate(ROOT, ["localhost"], days=-1)
    assert expires(expired.certificate) < datetime.datetime.now(datetime.UTC)
    assert "expired" in handshake(tmp_path, expired, "localhost")
    assert handshake(tmp_path, server_certificate(authority("trial"), ["localhost"]), "localhost")


def test_the_authority_signs_servers_and_nothing_below_them(tmp_path: Path) -> None:
    found = x509.load_pem_x509_certificate(ROOT.certificate)
    limits = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert limits.critical and limits.value.ca and limits.value.path_length == 0
    usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and not usage.digital_signature
    server = server_certificate(ROOT, ["localhost"])
    below = server_certificate(server, ["localhost"])
    chained = Certificate(below.certificate + server.certificate, below.key)
    assert handshake(tmp_path, chained, "localhost"), "a server that signs others would be an authority"


def test_a_server_certificate_is_for_servers_and_for_a_year() -> None:
    found = x509.load_pem_x509_certificate(server_certificate(ROOT, ["localhost"]).certificate)
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not found.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    now = datetime.datetime.now(datetime.UTC)
    assert found.not_valid_before_utc < now - datetime.timedelta(minutes=50), "a slow clock may still connect"
    assert found.not_valid_after_utc - now < datetime.timedelta(days=398)
    assert expires(ROOT.certificate) - now < datetime.timedelta(days=AUTHORITY_DAYS + 1)


def test_fingerprints_are_of_the_certificate() -> None:
    der = x509.load_pem_x509_certificate(ROOT.certificate).public_bytes(serialization.Encoding.DER)
    import hashlib

    assert fingerprint(ROOT.certificate) == hashlib.sha256(der).hexdigest()
    assert fingerprint(ROOT.certificate) != fingerprint(authority("trial").certificate)


def test_a_key_of_another_kind_signs_nothing() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = Ed25519PrivateKey.generate().private_bytes(encoding, form, serialization.NoEncryption())
    with pytest.raises(ValueError, match="elliptic-curve"):
        server_certificate(Certificate(ROOT.certificate, other), ["localhost"])
