"""Development certificates: an authority that clients trust, and the server's certificate that it issued."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cardwright.kit.files import PRIVATE, create_file, read_file, replace_file

ORGANIZATION = "Cardwright self-made certificate"

# Clients of some vendors refuse server certificates that are valid for more than 398 days.
LIFE_TIME = timedelta(days=397)
RENEW_BEFORE = timedelta(days=7)
# Validity begins in the past, so that a client with a slow clock accepts the certificate.
CLOCK_SKEW = timedelta(days=1)

# IDNA 2008, which trustme applies, excludes "_". Hyphens are excluded at both ends, and at positions 3 and 4 except in "xn--".
LABEL = r"(?!(?!xn)..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST_NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?", re.IGNORECASE)


def self_made_certificate(directory: Path, hosts: Iterable[str], now: datetime) -> tuple[Path, Path]:
    """Return the paths of the file that clients trust and of the server's key and certificate. ``now`` has a time zone.

    ``ca.pem`` is the authority's certificate: a client with this file trusts the server (``verify=`` of requests, ``cafile`` of
    ssl). ``ca-key.pem`` contains the authority's key and certificate. Both are created once and kept. ``server.pem`` contains the
    key and the certificates of the server. It is renewed only if at most seven days are left or the hosts differ. Files with a
    key have mode 0600.

    For development only. A process that can read ``ca-key.pem`` can impersonate any host to each client that trusts ``ca.pem``.
    trustme fixes the validity of ``ca.pem`` to the years 2000 to 2999. Raises ValueError without hosts, for a text that is not
    a host, or if ``ca-key.pem`` is invalid.
    """
    identities = list(dict.fromkeys(_identity(host) for host in hosts))
    if not identities:
        raise ValueError("a certificate needs at least one host name")
    directory.mkdir(parents=True, exist_ok=True)
    ca_path, server_path = directory / "ca.pem", directory / "server.pem"
    authority = _kept_authority(directory / "ca-key.pem")
    ca_pem = authority.cert_pem.bytes()
    if not ca_path.exists() or read_file(ca_path) != ca_pem:
        replace_file(ca_path, ca_pem, 0o644)
    if not _is_still_good(server_path, x509.load_pem_x509_certificate(ca_pem), set(identities), now):
        begin, end = now - CLOCK_SKEW, now + LIFE_TIME
        issued = authority.issue_cert(*identities, organization_name=ORGANIZATION, not_before=begin, not_after=end)
        replace_file(server_path, issued.private_key_and_cert_chain_pem.bytes() + ca_pem)
    server_path.chmod(PRIVATE)
    return ca_path, server_path


def is_host(text: str) -> bool:
    """Return whether a certificate can be issued for the text: an IP address or an ASCII host name."""
    try:
        return bool(_identity(text))
    except ValueError:
        return False


def _identity(host: str) -> str:
    """Return the host in the spelling of certificates. Raises ValueError for a text that is not a host."""
    try:
        return str(ip_address(host))
    except ValueError:
        if HOST_NAME.fullmatch(host) is None:
            text = (
                f"{host!r} is neither an IP address nor a host name of ASCII letters, digits and hyphens; others need an A-label"
            )
            raise ValueError(text) from None
    return host.lower()


def _kept_authority(path: Path) -> trustme.CA:
    """Return the authority in the file, created on the first call.

    Of processes that start together exactly one creates the file.

    Raises ValueError if the file is invalid.
    """
    if not path.exists():
        made = trustme.CA(path_length=0, organization_name=ORGANIZATION)
        create_file(path, made.private_key_pem.bytes() + made.cert_pem.bytes())
    path.chmod(PRIVATE)
    content = read_file(path)
    key = load_pem_private_key(content, password=None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError(f"{path} does not contain the elliptic-curve key of a self-made authority")
    if x509.load_pem_x509_certificate(content).public_key() != key.public_key():
        raise ValueError(f"{path} contains the certificate of another key")
    return trustme.CA.from_pem(content, content)


def _is_still_good(path: Path, authority: x509.Certificate, identities: set[str], now: datetime) -> bool:
    """Return True if the file contains a key and a certificate of it that the authority issued for these identities.

    The certificate must be valid for more than ``RENEW_BEFORE``.
    """
    try:
        content = read_file(path)
        certificate, key = x509.load_pem_x509_certificate(content), load_pem_private_key(content, password=None)
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, InvalidSignature, x509.ExtensionNotFound):
        return False
    is_alive = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE
    return is_alive and certificate.public_key() == key.public_key() and {str(name.value) for name in names} == identities
