"""Passphrases: texts that are sealed under a passphrase, with scrypt and AES-256-GCM."""

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

LENGTH_MIN = 12
"""Minimum number of characters of a new passphrase."""

SALT_BYTES, NONCE_BYTES, KEY_BYTES = 16, 12, 32

COST, BLOCK_SIZE, PARALLELISM = 2**17, 8, 1
"""Parameters N, r and p of scrypt: 128 MiB of memory and about half a second for each guess."""


class WrongPassphrase(Exception):
    """An envelope that cannot be opened: another passphrase sealed it, or it was changed."""


def seal(text: str, passphrase: str, draw_bytes: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return the envelope of a text: salt, nonce, and the text with its tag."""
    salt, nonce = draw_bytes(SALT_BYTES), draw_bytes(NONCE_BYTES)
    return salt + nonce + _cipher(passphrase, salt).encrypt(nonce, text.encode(), salt)


def unseal(envelope: bytes, passphrase: str) -> str:
    """Return the text of an envelope. Raises WrongPassphrase."""
    salt, nonce, sealed = envelope[:SALT_BYTES], envelope[SALT_BYTES:][:NONCE_BYTES], envelope[SALT_BYTES + NONCE_BYTES :]
    try:
        return _cipher(passphrase, salt).decrypt(nonce, sealed, salt).decode()
    except (InvalidTag, ValueError):
        raise WrongPassphrase("the passphrase is wrong") from None


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    return AESGCM(Scrypt(salt, KEY_BYTES, COST, BLOCK_SIZE, PARALLELISM).derive(passphrase.encode()))
