"""A self-made certificate is accepted by real clients that were given it, and is kept as long as it serves."""

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from cardwright.kit.tls import LIFE_TIME, self_made_certificate

NOW = datetime.now(UTC)
NAMES = ["localhost", "127.0.0.1", "::1"]


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the test reads answers, not access lines."""


@contextmanager
def https_server(certificate: Path, key: Path) -> Iterator[int]:
    """A real HTTPS server on localhost; gives its port."""
    server = HTTPServer(("127.0.0.1", 0), Hello)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def handshake(port: int, context: ssl.SSLContext, hostname: str) -> str | None:
    """The protocol version that a client agrees on with the server."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname=hostname) as secure,
    ):
        return secure.version()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    return self_made_certificate(tmp_path / "tls", NAMES, NOW)


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1"])
def test_a_strict_client_shakes_hands(made: tuple[Path, Path], hostname: str) -> None:
    """Python's ssl with full verification, OpenSSL's strict mode included, accepts the certificate for name and address."""
    context = ssl.create_default_context(cafile=str(made[0]))
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    with https_server(*made) as port:
        assert handshake(port, context, hostname) == "TLSv1.3"


def test_requests_accepts_it_as_its_authority(made: tuple[Path, Path]) -> None:
    """``requests`` with ``verify`` set to the certificate file reads an answer, by name and by address."""
    with https_server(*made) as port:
        for host in ("localhost", "127.0.0.1"):
            assert requests.get(f"https://{host}:{port}/", verify=str(made[0]), timeout=60).text == "hello"


def test_strangers_and_other_names_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Without the certificate, with another one, or under another name the handshake fails: the acceptance above counts."""
    other, _ = self_made_certificate(tmp_path / "other", NAMES, NOW)
    with https_server(*made) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
            handshake(port, ssl.create_default_context(), "localhost")
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(port, ssl.create_default_context(cafile=str(other)), "localhost")
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(port, ssl.create_default_context(cafile=str(made[0])), "example.com")


def test_names_and_dates(made: tuple[Path, Path]) -> None:
    """Names and addresses stand in the certificate as what they are; it is its own authority and lives for 397 days."""
    certificate = x509.load_pem_x509_certificate(made[0].read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert certificate.not_valid_before_utc < NOW
    assert certificate.not_valid_after_utc == (NOW + LIFE_TIME).replace(microsecond=0)


def test_the_key_is_for_its_owner_only(made: tuple[Path, Path]) -> None:
    """The key has mode 0600, also after somebody loosened it; the certificate may be read by everybody; nothing else is left."""
    certificate, key = made
    assert key.stat().st_mode & 0o777 == 0o600
    assert certificate.stat().st_mode & 0o777 == 0o644
    key.chmod(0o644)
    self_made_certificate(key.parent, NAMES, NOW)
    assert key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in key.parent.iterdir()) == ["certificate.pem", "key.pem"]


@pytest.mark.parametrize(
    ("names", "later", "kept"),
    [
        (NAMES, timedelta(0), True),
        (["::1", "LOCALHOST", "127.0.0.1", "localhost"], timedelta(0), True),
        (NAMES, LIFE_TIME - timedelta(days=7, minutes=1), True),
        (NAMES, LIFE_TIME - timedelta(days=7), False),
        (NAMES, LIFE_TIME + timedelta(days=1), False),
        (NAMES, timedelta(days=-2), False),
        (["localhost"], timedelta(0), False),
        ([*NAMES, "cardwright.test"], timedelta(0), False),
    ],
)
def test_when_it_is_made_anew(made: tuple[Path, Path], names: list[str], later: timedelta, kept: bool) -> None:
    """It is kept for the same names, in any order and case, while more than seven days are left; else made anew, same key."""
    before, key = made[0].read_bytes(), made[1].read_bytes()
    assert self_made_certificate(made[0].parent, names, NOW + later) == made
    assert (made[0].read_bytes() == before) is kept
    assert made[1].read_bytes() == key


@pytest.mark.parametrize("content", [b"", b"not a certificate"])
def test_a_broken_certificate_is_replaced(made: tuple[Path, Path], content: bytes) -> None:
    """A file that is no certificate, or that belongs to another key, is made anew."""
    made[0].write_bytes(content)
    self_made_certificate(made[0].parent, NAMES, NOW)
    assert public_key_of(made[0]) == private_key_of(made[1])


def test_a_certificate_of_another_key_is_replaced(made: tuple[Path, Path], tmp_path: Path) -> None:
    """After the key was exchanged, certificate and key belong together again."""
    _, other_key = self_made_certificate(tmp_path / "other", NAMES, NOW)
    made[1].write_bytes(other_key.read_bytes())
    self_made_certificate(made[0].parent, NAMES, NOW)
    assert public_key_of(made[0]) == private_key_of(made[1])


def test_starting_together(tmp_path: Path) -> None:
    """Eight starts at once in an empty directory end with one key and a certificate that fits it."""
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: self_made_certificate(tmp_path, NAMES, NOW), range(8)))
    [(certificate, key)] = paths
    assert public_key_of(certificate) == private_key_of(key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["certificate.pem", "key.pem"]


def test_what_is_refused(tmp_path: Path) -> None:
    """No names at all, a name that is not ASCII, and a foreign key file are ValueErrors."""
    with pytest.raises(ValueError, match="at least one"):
        self_made_certificate(tmp_path, [], NOW)
    with pytest.raises(ValueError, match="A-label"):
        self_made_certificate(tmp_path, ["bücher.test"], NOW)
    foreign = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(foreign)
    with pytest.raises(ValueError, match="elliptic-curve"):
        self_made_certificate(tmp_path, NAMES, NOW)


def public_key_of(certificate: Path) -> object:
    return x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()


def private_key_of(key: Path) -> object:
    return load_pem_private_key(key.read_bytes(), password=None).public_key()
