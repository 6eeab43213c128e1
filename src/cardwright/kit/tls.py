"""A self-made TLS certificate, so that HTTPS works from the first start."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cardwright.kit.files import PRIVATE, create_file, read_file, replace_file

# Clients of some vendors refuse certificates that live longer than 398 days.
LIFE_TIME = timedelta(days=397)
RENEW_BEFORE = timedelta(days=7)
# A client whose clock is behind ours must not find the certificate in its future.
CLOCK_SKEW = timedelta(days=1)


def self_made_certificate(directory: Path, hostnames: Sequence[str], now: datetime) -> tuple[Path, Path]:
    """Paths of the certificate and its key (PEM) in ``directory``, for DNS names and IP addresses; ``now`` has a time zone.

    The certificate is its own authority: a client trusts it when given the file (``verify=`` of requests, ``cafile`` of ssl). It
    is made once, and again only when at most seven days are left or the names differ; the key stays, with mode 0600. For
    development: who can read the key can speak for any name to everybody who trusts the certificate. ValueError without names,
    with a name that is not ASCII, or when the key file holds something else.
    """
    if not hostnames:
        raise ValueError("a certificate needs at least one host name")
    directory.mkdir(parents=True, exist_ok=True)
    certificate_path, key_path = directory / "certificate.pem", directory / "key.pem"
    key, names = _kept_key(key_path), _general_names(hostnames)
    if not _still_good(certificate_path, key, names, now):
        replace_file(certificate_path, _certificate(key, names, now).public_bytes(Encoding.PEM), 0o644)
    return certificate_path, key_path


def _kept_key(path: Path) -> EllipticCurvePrivateKey:
    """The key in the file, made on the first call. Of processes that start together only one can link, and all read its key."""
    if not path.exists():
        made = generate_private_key(SECP256R1())
        create_file(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(PRIVATE)
    match load_pem_private_key(read_file(path), password=None):
        case EllipticCurvePrivateKey() as key:
            return key
        case _:
            raise ValueError(f"{path} does not hold the elliptic-curve key of a self-made certificate")


def _still_good(path: Path, key: EllipticCurvePrivateKey, names: list[x509.GeneralName], now: datetime) -> bool:
    """Whether the file holds a certificate of this key and these names that is valid for a while."""
    try:
        certificate = x509.load_pem_x509_certificate(read_file(path))
        certificate_names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    lives = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE
    return lives and certificate.public_key() == key.public_key() and set(certificate_names) == set(names)


def _certificate(key: EllipticCurvePrivateKey, names: list[x509.GeneralName], now: datetime) -> x509.Certificate:
    """Leaf and authority in one, with the extensions that OpenSSL's strict mode asks of an authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cardwright self-made certificate")])
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + LIFE_TIME)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(key_id, critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
    return builder.sign(key, SHA256())


def _key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(hostnames: Sequence[str]) -> list[x509.GeneralName]:
    return [_general_name(hostname) for hostname in dict.fromkeys(name.lower() for name in hostnames)]


def _general_name(hostname: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(hostname))
    except ValueError:
        return x509.DNSName(hostname)
