"""A certificate for tests of TLS and QUIC in the simulator."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def certificate(host: str) -> x509.Certificate:
    """Return a certificate of `host` that is its own authority, valid at the wall clock of simulations and today."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC))
    builder = builder.not_valid_after(datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(KEY, None)


def pem_of(cert: x509.Certificate) -> bytes:
    """Return a certificate as text."""
    return cert.public_bytes(serialization.Encoding.PEM)


def tls_contexts(host: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a client and a server of `host` use."""
    cert = certificate(host)
    plain = serialization.NoEncryption()
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path = folder / "server.pem"
    path.write_bytes(key + pem_of(cert))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=pem_of(cert).decode())
    return client, server
