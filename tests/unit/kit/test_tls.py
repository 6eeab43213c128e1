"""Development certificates: clients that trust the authority accept them, and a valid certificate is kept."""

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

from cardwright.kit.tls import LIFE_TIME, is_host, self_made_certificate

NOW = datetime.now(UTC)
NAMES = ["localhost", "127.0.0.1", "::1"]


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def https_server(certificate: Path) -> Iterator[int]:
    """Run an HTTPS server on localhost; yield its port."""
    server = HTTPServer(("127.0.0.1", 0), Hello)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
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
    """Return the TLS version of a handshake with the server."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname=hostname) as secure,
    ):
        return secure.version()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """Return the authority's file, which clients trust, and the server's file."""
    return self_made_certificate(tmp_path / "tls", NAMES, NOW)


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1"])
def test_a_strict_client_shakes_hands(made: tuple[Path, Path], hostname: str) -> None:
    """Python's ssl with OpenSSL's strict verification accepts the certificate for name and address."""
    context = ssl.create_default_context(cafile=str(made[0]))
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    with https_server(made[1]) as port:
        assert handshake(port, context, hostname) == "TLSv1.3"


def test_requests_accepts_its_authority(made: tuple[Path, Path]) -> None:
    """``requests`` with the authority's file as ``verify`` gets an answer, by name and by address."""
    with https_server(made[1]) as port:
        for host in ("localhost", "127.0.0.1"):
            assert requests.get(f"https://{host}:{port}/", verify=str(made[0]), timeout=60).text == "hello"


def test_strangers_and_other_names_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    """The handshake fails without the authority, with another authority, and under another name."""
    other, _ = self_made_certificate(tmp_path / "other", NAMES, NOW)
    with https_server(made[1]) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
            handshake(port, ssl.create_default_context(), "localhost")
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(port, ssl.create_default_context(cafile=str(other)), "localhost")
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(port, ssl.create_default_context(cafile=str(made[0])), "example.com")


def test_names_and_dates(made: tuple[Path, Path]) -> None:
    """Host names and addresses have their types, only the authority is a CA, and the certificate's lifetime is LIFE_TIME."""
    authority, certificate = certificate_in(made[0]), certificate_in(made[1])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    # rustls and Firefox refuse a server certificate that is a CA.
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority.not_valid_before_utc < certificate.not_valid_before_utc == (NOW - timedelta(days=1)).replace(microsecond=0)
    assert authority.not_valid_after_utc > certificate.not_valid_after_utc == (NOW + LIFE_TIME).replace(microsecond=0)


def test_keys_are_for_their_owner_only(made: tuple[Path, Path]) -> None:
    """Files with a key get mode 0600 again after a change. The authority's file is readable by all. No other file is left."""
    ca, server = made
    with_keys = (ca.with_name("ca-key.pem"), server)
    for _ in range(2):
        assert [path.stat().st_mode & 0o777 for path in with_keys] == [0o600, 0o600]
        assert ca.stat().st_mode & 0o777 == 0o644
        for path in with_keys:
            path.chmod(0o644)
        self_made_certificate(ca.parent, NAMES, NOW)
    assert b"PRIVATE KEY" not in ca.read_bytes()
    assert sorted(path.name for path in ca.parent.iterdir()) == ["ca-key.pem", "ca.pem", "server.pem"]


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
    """A certificate is kept for the same names, in any order and case, if it is valid for more than seven days.

    Otherwise the same authority issues a new one.
    """
    ca, server = made
    before, key, trusted = server.read_bytes(), ca.with_name("ca-key.pem").read_bytes(), ca.read_bytes()
    assert self_made_certificate(ca.parent, names, NOW + later) == made
    assert (server.read_bytes() == before) is kept
    assert ca.with_name("ca-key.pem").read_bytes() == key
    assert ca.read_bytes() == trusted
    assert_fitting(ca.parent)


def test_a_renewed_certificate_needs_no_new_trust(made: tuple[Path, Path]) -> None:
    """A client with a copy of the authority's file accepts a server certificate that was issued later."""
    context = ssl.create_default_context(cafile=str(made[0]))
    before = made[1].read_bytes()
    self_made_certificate(made[0].parent, [*NAMES, "cardwright.test"], NOW)
    assert made[1].read_bytes() != before
    with https_server(made[1]) as port:
        assert handshake(port, context, "cardwright.test") == "TLSv1.3"


@pytest.mark.parametrize("content", [b"", b"not a certificate", None])
@pytest.mark.parametrize("name", ["ca.pem", "server.pem"])
def test_a_broken_certificate_is_replaced(made: tuple[Path, Path], name: str, content: bytes | None) -> None:
    """A missing or invalid file is replaced."""
    path = made[0].with_name(name)
    path.unlink() if content is None else path.write_bytes(content)
    self_made_certificate(made[0].parent, NAMES, NOW)
    assert_fitting(made[0].parent)


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem", "server.pem"])
def test_a_certificate_of_another_key_is_replaced(made: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """If one file comes from another authority, the files are replaced so that they belong together."""
    self_made_certificate(tmp_path / "other", NAMES, NOW)
    made[0].with_name(name).write_bytes((tmp_path / "other" / name).read_bytes())
    self_made_certificate(made[0].parent, NAMES, NOW)
    assert_fitting(made[0].parent)


def test_a_certificate_with_another_key_is_replaced(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A server's file whose certificate does not belong to its key is replaced."""
    _, other = self_made_certificate(tmp_path / "other", NAMES, NOW)
    key, _, _ = other.read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
    _, begin, certificates = made[1].read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
    made[1].write_bytes(key + begin + certificates)
    self_made_certificate(made[0].parent, NAMES, NOW)
    assert_fitting(made[0].parent)


def test_starting_together(tmp_path: Path) -> None:
    """Eight concurrent calls in an empty directory create one authority and one certificate that it issued."""
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: self_made_certificate(tmp_path, NAMES, NOW), range(8)))
    assert paths == {(tmp_path / "ca.pem", tmp_path / "server.pem")}
    assert_fitting(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca-key.pem", "ca.pem", "server.pem"]


def test_what_is_refused(tmp_path: Path) -> None:
    """An empty list of names, a non-ASCII name and a key file of another type raise ValueError."""
    with pytest.raises(ValueError, match="at least one"):
        self_made_certificate(tmp_path, [], NOW)
    with pytest.raises(ValueError, match="A-label"):
        self_made_certificate(tmp_path, ["bücher.test"], NOW)
    foreign = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca-key.pem").write_bytes(foreign)
    with pytest.raises(ValueError, match="elliptic-curve"):
        self_made_certificate(tmp_path, NAMES, NOW)


def test_an_authority_with_another_key_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A key that does not belong to the authority's certificate raises ValueError."""
    self_made_certificate(tmp_path / "other", NAMES, NOW)
    key, _, _ = (tmp_path / "other" / "ca-key.pem").read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
    made[0].with_name("ca-key.pem").write_bytes(key + made[0].read_bytes())
    with pytest.raises(ValueError, match="another key"):
        self_made_certificate(made[0].parent, NAMES, NOW)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("127.0.0.1", True),
        ("fd00::7", True),
        ("localhost", True),
        ("Build-7.example.", True),
        ("a--b", True),
        ("xn--bcher-kva.test", True),
        ("x" * 63, True),
        ("x" * 64, False),
        ("build_1", False),
        ("ab--cd", False),
        ("-a", False),
        ("a-.test", False),
        ("a..b", False),
        ("bücher.test", False),
        ("10.0.0.0/8", False),
        ("me@example.com", False),
        ("", False),
    ],
)
def test_hosts(text: str, valid: bool, tmp_path: Path) -> None:
    """A certificate is issued for each text that is a host, and any other text raises ValueError."""
    assert is_host(text) is valid
    if valid:
        names = certificate_in(self_made_certificate(tmp_path, [text], NOW)[1]).extensions
        assert [str(name.value) for name in names.get_extension_for_class(x509.SubjectAlternativeName).value] == [text.lower()]
    else:
        with pytest.raises(ValueError, match="A-label"):
            self_made_certificate(tmp_path, [text], NOW)


def assert_fitting(directory: Path) -> None:
    """Assert that the server's key and certificate and the authority's certificate and key belong together."""
    ca, server = directory / "ca.pem", directory / "server.pem"
    assert certificate_in(server).public_key() == private_key_of(server)
    certificate_in(server).verify_directly_issued_by(certificate_in(ca))
    assert certificate_in(ca).public_key() == private_key_of(directory / "ca-key.pem")


def certificate_in(path: Path) -> x509.Certificate:
    """Return the first certificate of a file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def private_key_of(path: Path) -> object:
    return load_pem_private_key(path.read_bytes(), password=None).public_key()
