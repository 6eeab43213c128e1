"""The vault: one master key, and everything that is encrypted, looked up or derived under it."""

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
# The first byte of an envelope says which master key sealed it, so that a second key can come without touching old rows.
KEY_ID = 1


class VaultError(Exception):
    """An envelope that cannot be opened: damaged, moved to another owner, or sealed under another key. Its text has no secret."""


def random_nonce() -> bytes:
    """Twelve bytes from the operating system."""
    return os.urandom(NONCE_BYTES)


def counted_nonces(seed: int) -> NonceSource:
    """Nonces for a seeded run: the same seed gives the same sequence, and no two calls give the same. Safe between threads."""
    prefix = (seed % 2**32).to_bytes(4)
    counter = itertools.count()
    return lambda: prefix + next(counter).to_bytes(NONCE_BYTES - 4)


class Vault:
    """Keys for card numbers, look-up, credentials, security codes and other secrets, each derived from one master key.

    Safe between threads. It shows no key in its ``repr`` and cannot be pickled or copied.
    """

    __slots__ = (
        "_credential_key", "_cvv_key", "_draw_nonce", "_fingerprint_key", "_lookup_key", "_nonce_key", "_pan_cipher",
        "_seal_cipher",
    )  # fmt: skip

    def __init__(self, master_key: bytes, nonce_source: NonceSource = random_nonce) -> None:
        """ValueError when the master key is not 32 bytes."""
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
        """The vault of a master key written as 64 hexadecimal digits; ValueError, without the text, for anything else."""
        try:
            return cls(bytes.fromhex(master_key), nonce_source)
        except ValueError:
            raise ValueError(f"a master key is {2 * KEY_BYTES} hexadecimal digits") from None

    def encrypt_pan(self, pan: str, program: str, card_token: str) -> bytes:
        """The card number's envelope (key id, nonce, AES-256-GCM), which opens only for this program and card."""
        return self._sealed(self._pan_cipher, pan, _packed("pan", program, card_token))

    def decrypt_pan(self, envelope: bytes, program: str, card_token: str) -> str:
        """The card number; VaultError when a bit of the envelope, the program or the card differs."""
        return self._opened(self._pan_cipher, envelope, _packed("pan", program, card_token))

    def seal(self, text: str, context: str) -> bytes:
        """The envelope of another secret at rest; ``context`` names its owner, as in ``webhook:<token>:password``."""
        return self._sealed(self._seal_cipher, text, _packed("seal", context))

    def open(self, envelope: bytes, context: str) -> str:
        """The sealed text; VaultError when a bit of the envelope or the context differs."""
        return self._opened(self._seal_cipher, envelope, _packed("seal", context))

    def pan_digest(self, pan: str, program: str) -> bytes:
        """32 bytes by which a card number is found again in its program: HMAC-SHA-256, since a plain hash of a PAN is guessed."""
        return _hmac(self._lookup_key, program, pan)

    def credential_digest(self, application_token: str, access_token: str) -> bytes:
        """32 bytes to store and compare instead of API credentials. An HMAC: argon2 would cost 146 ms for each request."""
        return _hmac(self._credential_key, application_token, access_token)

    def fingerprint(self, request: str, body: bytes) -> bytes:
        """Return 16 bytes that stand for a request and its body.

        An HMAC, because a body may hold a security code or a PIN, which a plain hash gives away after 1,000 guesses.
        """
        return _hmac(self._fingerprint_key, request, body)[:FINGERPRINT_BYTES]

    def cvv(self, pan: str, expiration_mmyy: str, service_code: str, kind: CvvKind = "CVV2") -> str:
        """The three-digit security code of a card: bound to number, expiry and service code, derived each time, never stored."""
        digest = _hmac(self._cvv_key, kind, pan, expiration_mmyy, service_code)
        # 256 bits modulo 1,000: no code is likelier than another by more than one part in 2^246.
        return f"{int.from_bytes(digest) % 1000:03d}"

    def __repr__(self) -> str:
        return f"Vault(key_id={KEY_ID})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a vault is neither pickled nor copied")

    def _sealed(self, cipher: AESGCM, text: str, owner: bytes) -> bytes:
        key_id = bytes([KEY_ID])
        draw = self._draw_nonce()
        assert len(draw) == NONCE_BYTES, "a nonce source draws twelve bytes"
        # GCM breaks when a nonce serves two texts, and a seeded run draws the same again after a restart. Mixing in the text and
        # its owner makes a repeated draw harmless: the nonce repeats only where the whole envelope does.
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
    """The parts with their lengths, so that ("ab", "c") and ("a", "bc") differ."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(4) + part for part in encoded)
