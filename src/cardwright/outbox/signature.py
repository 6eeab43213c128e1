"""Authentication of notifications: the HMAC signature and the Basic authorization header."""

import base64
import hmac
from typing import Final

SIGNATURE_HEADER: Final = "X-Marqeta-Signature"

# Hash functions by the wire's names of the algorithms.
SIGNATURE_ALGORITHMS: Final = {"HMAC_SHA_1": "sha1", "HMAC_SHA_256": "sha256"}


def sign(secret: str, body: bytes, algorithm: str = "HMAC_SHA_1") -> str:
    """Return the value of the signature header: lower-case hex of the HMAC of the raw body, keyed with the secret in UTF-8.

    Raises ValueError for an algorithm that is not in SIGNATURE_ALGORITHMS. Source: wire reference 9.6.1.
    """
    if algorithm not in SIGNATURE_ALGORITHMS:
        raise ValueError("unknown signature algorithm")
    return hmac.new(secret.encode(), body, SIGNATURE_ALGORITHMS[algorithm]).hexdigest()


def verify(secret: str, body: bytes, signature: str, algorithm: str = "HMAC_SHA_1") -> bool:
    """Return whether `signature` equals the result of `sign`, in constant time. Raises ValueError as `sign` does."""
    # Compared as bytes, because compare_digest raises TypeError for text outside ASCII, and the signature comes from outside.
    return hmac.compare_digest(sign(secret, body, algorithm).encode(), signature.encode(errors="replace"))


def basic_auth(username: str, password: str) -> str:
    """Return the value of the Authorization header (RFC 7617, in UTF-8)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
