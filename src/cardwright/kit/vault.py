"""Vault: one master key, and the encryption, lookup digests and derived values under it."""

import hmac
import itertools
import os
from collections.abc import Callable
from typing import Literal, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NonceSource = Callable[[], bytes]
CvvKind = Literal["CVV2", "ICVV"]

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
FINGERPRINT_BYTES = 16
# The first byte of an envelope identifies the master key that sealed it, so a second key would not change old rows.
KEY_ID = 1


class VaultError(Exception):
    """Failure to open an envelope: damaged, of another owner, or sealed under another key. Its text contains no secret."""


def random_nonce() -> bytes:
    """Return twelve random bytes from the operating system."""
    return os.urandom(NONCE_BYTES)


def counted_nonces(seed: int) -> NonceSource:
    """Return a nonce source for a seeded run.

    A seed always gives the same sequence, without repetition. Safe for use by several threads.
    """
    prefix = (seed % 2**32).to_bytes(4)
    counter = itertools.count()
    return lambda: prefix + next(counter).to_bytes(NONCE_BYTES - 4)


class Vault:
    """Keys for card numbers, lookup, credentials, security codes and other secrets, each derived from one master key.

    Safe for use by several threads. Its ``repr`` shows no key, and it cannot be pickled or copied.
    """

    __slots__ = (
        "_credential_key", "_cvv_key", "_draw_nonce", "_fingerprint_key", "_lookup_key", "_nonce_key", "_pan_cipher",
        "_seal_cipher",
    )  # fmt: skip

    def __init__(self, master_key: bytes, nonce_source: NonceSource = random_nonce) -> None:
        """Derive the keys. Raises ValueError if the master key does not have 32 bytes."""
        if len(master_key) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes")
        self._draw_nonce = nonce_source
        self._pan_cipher = AESGCM(_derived(master_key, "pan"))
        self._seal_cipher = AESGCM(_derived(master_key, "seal"))
        self._nonce_key = _derived(master_key, "nonce")
        self._lookup_key = _derived(master_key, "pan look-up")
        self._credential_key = _derived(master_key, "credential")
        self._cvv_key = _derived(master_key, "cvv")
        self._fingerprint_key = _derived(master_key, "fingerprint")

    @classmethod
    def from_hex(cls, master_key: str, nonce_source: NonceSource = random_nonce) -> "Vault":
        """Return the vault of a master key of 64 hexadecimal digits. Raises ValueError, without the text, for any other text."""
        try:
            return cls(bytes.fromhex(master_key), nonce_source)
        except ValueError:
            raise ValueError(f"a master key is {2 * KEY_BYTES} hexadecimal digits") from None

    def encrypt_pan(self, pan: str, program: str, card_token: str) -> bytes:
        """Return the card number's envelope (key id, nonce, AES-256-GCM). It can be opened only with this program and card."""
        return self._sealed(self._pan_cipher, pan, _packed("pan", program, card_token))

    def decrypt_pan(self, envelope: bytes, program: str, card_token: str) -> str:
        """Return the card number. Raises VaultError if the envelope, the program or the card differs."""
        return self._opened(self._pan_cipher, envelope, _packed("pan", program, card_token))

    def seal(self, text: str, context: str) -> bytes:
        """Return the envelope of another stored secret. ``context`` names its owner, as in ``webhook:<token>:password``."""
        return self._sealed(self._seal_cipher, text, _packed("seal", context))

    def open(self, envelope: bytes, context: str) -> str:
        """Return the sealed text. Raises VaultError if the envelope or the context differs."""
        return self._opened(self._seal_cipher, envelope, _packed("seal", context))

    def pan_digest(self, pan: str, program: str) -> bytes:
        """Return 32 bytes for the lookup of a card number in its program.

        HMAC-SHA-256, because a plain hash of a PAN can be guessed.
        """
        return _hmac(self._lookup_key, program, pan)

    def credential_digest(self, application_token: str, access_token: str) -> bytes:
        """Return 32 bytes to store and compare instead of API credentials.

        HMAC, because argon2 would take 146 ms for each request.
        """
        return _hmac(self._credential_key, application_token, access_token)

    def fingerprint(self, request: str, body: bytes) -> bytes:
        """Return 16 bytes that identify a request and its body.

        HMAC, because a body may hold a security code or a PIN: 1,000 guesses would find a security code in a plain hash.
        """
        return _hmac(self._fingerprint_key, request, body)[:FINGERPRINT_BYTES]

    def cvv(self, pan: str, expiration_mmyy: str, service_code: str, kind: CvvKind = "CVV2") -> str:
        """Return the three-digit security code of a card, derived from number, expiration and service code.

        The code is never stored.
        """
        digest = _hmac(self._cvv_key, kind, pan, expiration_mmyy, service_code)
        # 256 bits modulo 1,000: the probabilities of two codes differ by less than one part in 2^246.
        return f"{int.from_bytes(digest) % 1000:03d}"

    def __repr__(self) -> str:
        return f"Vault(key_id={KEY_ID})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a vault is neither pickled nor copied")

    def _sealed(self, cipher: AESGCM, text: str, owner: bytes) -> bytes:
        key_id = bytes([KEY_ID])
        draw = self._draw_nonce()
        assert len(draw) == NONCE_BYTES, "a nonce source draws twelve bytes"
        # GCM is broken if a nonce encrypts two texts, and a seeded run repeats its draws after a restart. The nonce also depends
        # on the text and its owner, so it repeats only if the whole envelope does.
        nonce = _hmac(self._nonce_key, draw, owner, text)[:NONCE_BYTES]
        return key_id + nonce + cipher.encrypt(nonce, text.encode(), owner + key_id)

    def _opened(self, cipher: AESGCM, envelope: bytes, owner: bytes) -> str:
        key_id, nonce, sealed = envelope[:1], envelope[1 : 1 + NONCE_BYTES], envelope[1 + NONCE_BYTES :]
        if len(sealed) < TAG_BYTES:
            raise VaultError("the envelope is too short")
        if key_id != bytes([KEY_ID]):
            raise VaultError(f"the envelope was sealed under key {key_id[0]}, which this vault does not have")
        try:
            return cipher.decrypt(nonce, sealed, owner + key_id).decode()
        except InvalidTag:
            raise VaultError("the envelope is damaged, or belongs to another owner or master key") from None


def _derived(master_key: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"cardwright v1 {purpose}".encode()).derive(master_key)


def _hmac(key: bytes, *parts: str | bytes) -> bytes:
    return hmac.digest(key, _packed(*parts), "sha256")


def _packed(*parts: str | bytes) -> bytes:
    """Return the parts with their lengths, so that ("ab", "c") and ("a", "bc") differ."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(4) + part for part in encoded)
