"""Webhook signatures and Basic authorization: they match the vectors of the wire reference (9.6.1)."""

import pytest

from cardwright.outbox.signature import SIGNATURE_HEADER, basic_auth, sign, verify

SECRET = "Quiet-Harbor_7421!Lantern"
PURCHASE = b'{"transactions":[{"type":"authorization","state":"PENDING","token":"txn_ref_0001","amount":12.34}]}'
PING = b'{"pings":[{"token":"marqeta","payload":"healthcheck"}]}'

VECTORS = [
    (PURCHASE, "HMAC_SHA_1", "2fd2c3f18cf10ed79e2ca3ece84d3233ecb8aa90"),
    (PURCHASE, "HMAC_SHA_256", "aaf6125af4c0af697f9c97236ceefc73aa16890cc15a5130907f8cb07bf79dfa"),
    (PING, "HMAC_SHA_1", "450c9c1f0bea4145b906cc74070e4c77f07142dc"),
    (PING, "HMAC_SHA_256", "dacd92ae0fa5af17c9db29367ce80b268c055878cceba690d206742ae8c63431"),
]


@pytest.mark.parametrize(("body", "algorithm", "signature"), VECTORS)
def test_signatures_are_those_of_the_reference(body: bytes, algorithm: str, signature: str) -> None:
    """A signature equals that of the wire reference, and ``verify`` accepts it."""
    assert sign(SECRET, body, algorithm) == signature
    assert verify(SECRET, body, signature, algorithm)


def test_sha_1_is_what_one_gets_without_asking() -> None:
    """The default algorithm is HMAC_SHA_1, so a webhook without an algorithm keeps its signatures."""
    assert sign(SECRET, PING) == sign(SECRET, PING, "HMAC_SHA_1")
    assert verify(SECRET, PING, sign(SECRET, PING))


@pytest.mark.parametrize(
    ("secret", "body", "signature", "algorithm"),
    [
        (SECRET, PING + b" ", VECTORS[2][2], "HMAC_SHA_1"),
        (SECRET + "x", PING, VECTORS[2][2], "HMAC_SHA_1"),
        (SECRET, PING, VECTORS[2][2], "HMAC_SHA_256"),
        (SECRET, PING, VECTORS[2][2].upper(), "HMAC_SHA_1"),
        (SECRET, PING, VECTORS[2][2][:-1], "HMAC_SHA_1"),
        (SECRET, PING, "", "HMAC_SHA_1"),
        (SECRET, PING, "ünicode \ud800", "HMAC_SHA_1"),
    ],
)
def test_anything_else_is_not_a_signature(secret: str, body: bytes, signature: str, algorithm: str) -> None:
    """A signature of another body, secret or algorithm, or in another spelling, is refused without an exception."""
    assert not verify(secret, body, signature, algorithm)


def test_an_unknown_algorithm_is_an_error() -> None:
    """An unknown algorithm raises ValueError without the secret, and never falls back to another one."""
    for attempt in (lambda: sign(SECRET, PING, "sha1"), lambda: verify(SECRET, PING, "", "HMAC_MD5")):
        with pytest.raises(ValueError, match="unknown signature algorithm") as raised:
            attempt()
        assert SECRET not in str(raised.value)


def test_basic_auth_is_that_of_the_reference() -> None:
    """The Authorization header equals that of the reference, and non-ASCII text is encoded as UTF-8."""
    assert basic_auth("hookuser", SECRET) == "Basic aG9va3VzZXI6UXVpZXQtSGFyYm9yXzc0MjEhTGFudGVybg=="
    assert basic_auth("é", "ß") == "Basic w6k6w58="


def test_the_header_has_the_wire_s_name() -> None:
    """The header of the signature has the name that consumers of Marqeta's webhooks read."""
    assert SIGNATURE_HEADER == "X-Marqeta-Signature"
