"""Vault: data keys wrapped under a master key, and the encryption, lookup digests and derived values under the data keys."""

import hmac
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NoReturn

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

FIRST_KEY_ID = 1

KEY_IDS_MAX = 255
"""Maximum number of key ids: the first byte of an envelope is the id of the key that sealed it."""

SEALING_PURPOSES = ("pan", "seal", "nonce")
"""The purposes of the keys that seal envelopes: card numbers, other secrets, nonces. ``rekey --data`` makes new ones."""

FIXED_PURPOSES = ("pan look-up", "credential", "cvv", "fingerprint")
"""The purposes of the keys that never change: rows contain their digests, and cards their security codes (decision 15)."""


class VaultError(Exception):
    """Failure to open an envelope: damaged, of another owner, or sealed under another key. Its text contains no secret."""


class KeyName(NamedTuple):
    """The id and the purpose of a data key."""

    key_id: int
    purpose: str


@dataclass(frozen=True, slots=True)
class DataKeys:
    """Keys of 32 bytes by name, and the id of the keys that seal new envelopes. Its ``repr`` shows no key."""

    keys: Mapping[KeyName, bytes] = field(repr=False)
    sealing_id: int

    @property
    def sealing_ids(self) -> list[int]:
        """Return the ids of all sealing keys."""
        return [name.key_id for name in self.keys if name.purpose == SEALING_PURPOSES[0]]


LoadKeys = Callable[[], DataKeys]


class MasterKey:
    """The key that wraps data keys. Its ``repr`` shows no key, and it cannot be pickled or copied."""

    __slots__ = ("_cipher", "_key", "_nonce_key")

    def __init__(self, key: bytes) -> None:
        """Derive the wrapping key. Raises ValueError if the master key does not have 32 bytes."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes")
        self._key = key
        self._cipher = AESGCM(_derived(key, "wrap"))
        self._nonce_key = _derived(key, "wrap nonce")

    @classmethod
    def from_hex(cls, text: str) -> "MasterKey":
        """Return the master key of 64 hexadecimal digits. Raises ValueError, without the text, for any other text."""
        try:
            return cls(bytes.fromhex(text))
        except ValueError:
            raise ValueError(f"a master key is {2 * KEY_BYTES} hexadecimal digits") from None

    def check(self) -> str:
        """Return a keyed hash that identifies the master key. The database stores it to detect another master key."""
        # Version 0.1 stored this value, the look-up digest of the text "master key", so its databases keep it.
        return _hmac(_derived(self._key, "pan look-up"), "master key", "master key").hex()

    def wrap(self, name: KeyName, key: bytes) -> bytes:
        """Return a data key under AES-256-GCM: nonce and ciphertext. It can be unwrapped only under the same name."""
        # The nonce depends on name and key, so it repeats only if the whole text does.
        owner = _owner_of(name)
        nonce = _hmac(self._nonce_key, owner, key)[:NONCE_BYTES]
        return nonce + self._cipher.encrypt(nonce, key, owner)

    def unwrap(self, name: KeyName, wrapped: bytes) -> bytes:
        """Return the data key. Raises VaultError if text, name or master key differ."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _owner_of(name))
        except (InvalidTag, ValueError):
            text = f"the data key {name.purpose} {name.key_id} is damaged, or wrapped under another master key"
            raise VaultError(text) from None

    def derived_keys(self) -> DataKeys:
        """Return data keys that are derived from the master key.

        They are those of a database from a version without stored data keys, and those of a seeded run.
        """
        names = [KeyName(FIRST_KEY_ID, purpose) for purpose in (*SEALING_PURPOSES, *FIXED_PURPOSES)]
        return DataKeys({name: _derived(self._key, name.purpose) for name in names}, FIRST_KEY_ID)

    def __repr__(self) -> str:
        return "MasterKey()"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a master key is neither pickled nor copied")


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


def random_keys(key_id: int, purposes: Iterable[str]) -> dict[KeyName, bytes]:
    """Return new data keys from the operating system's randomness."""
    return {KeyName(key_id, purpose): os.urandom(KEY_BYTES) for purpose in purposes}


class _SealingKey(NamedTuple):
    """The keys of one id that seal envelopes; ``prefix`` is the first byte of their envelopes."""

    prefix: bytes
    pan_cipher: AESGCM
    seal_cipher: AESGCM
    nonce_key: bytes


class _FixedKeys(NamedTuple):
    """The keys of digests and security codes."""

    lookup: bytes
    credential: bytes
    cvv: bytes
    fingerprint: bytes


class Vault:
    """Encryption of card numbers and other secrets, lookup digests and security codes, under the data keys of a database.

    It loads the keys at its first use, and again if an envelope has an unknown key id, because another process may have added
    keys. Safe for use by several threads. Its ``repr`` shows no key, and it cannot be pickled or copied.
    """

    __slots__ = ("_draw_nonce", "_fixed_keys", "_load_keys", "_newest_key", "_sealing_keys")

    def __init__(self, load_keys: LoadKeys, nonce_source: NonceSource = random_nonce) -> None:
        """Create a vault without keys. Every method raises the exceptions of ``load_keys`` if it must load them."""
        self._load_keys = load_keys
        self._draw_nonce = nonce_source
        self._sealing_keys: dict[int, _SealingKey] = {}
        self._newest_key: _SealingKey | None = None
        self._fixed_keys: _FixedKeys | None = None

    @property
    def key_ids(self) -> frozenset[int]:
        """Return the ids of the sealing keys that this process has."""
        return frozenset(self._sealing_keys)

    @property
    def sealing_id(self) -> int | None:
        """Return the id of the keys that seal new envelopes, None before the keys are loaded."""
        return None if self._newest_key is None else self._newest_key.prefix[0]

    def reload(self) -> None:
        """Load the keys again. New envelopes are sealed under the keys that the database names."""
        data_keys = self._load_keys()
        # Known keys stay: this process may have cached envelopes under a key that the database does not have any more.
        known = self._sealing_keys
        made = {key_id: _sealing_key(data_keys, key_id) for key_id in data_keys.sealing_ids if key_id not in known}
        self._sealing_keys = known | made
        self._newest_key = self._sealing_keys[data_keys.sealing_id]
        self._fixed_keys = _FixedKeys(*(data_keys.keys[KeyName(FIRST_KEY_ID, purpose)] for purpose in FIXED_PURPOSES))

    def encrypt_pan(self, pan: str, program: str, card_token: str) -> bytes:
        """Return the card number's envelope (key id, nonce, AES-256-GCM). It can be opened only with this program and card."""
        key = self._newest()
        return self._sealed(key, key.pan_cipher, pan, _packed("pan", program, card_token))

    def decrypt_pan(self, envelope: bytes, program: str, card_token: str) -> str:
        """Return the card number. Raises VaultError if the envelope, the program or the card differs."""
        return self._opened(self._key_of(envelope).pan_cipher, envelope, _packed("pan", program, card_token))

    def seal(self, text: str, context: str) -> bytes:
        """Return the envelope of another stored secret. ``context`` names its owner, as in ``webhook:<token>:password``."""
        key = self._newest()
        return self._sealed(key, key.seal_cipher, text, _packed("seal", context))

    def open(self, envelope: bytes, context: str) -> str:
        """Return the sealed text. Raises VaultError if the envelope or the context differs."""
        return self._opened(self._key_of(envelope).seal_cipher, envelope, _packed("seal", context))

    def pan_digest(self, pan: str, program: str) -> bytes:
        """Return 32 bytes for the lookup of a card number in its program.

        HMAC-SHA-256, because a plain hash of a PAN can be guessed.
        """
        return _hmac(self._fixed().lookup, program, pan)

    def credential_digest(self, application_token: str, access_token: str) -> bytes:
        """Return 32 bytes to store and compare instead of API credentials.

        HMAC, because argon2 would take 146 ms for each request.
        """
        return _hmac(self._fixed().credential, application_token, access_token)

    def fingerprint(self, request: str, body: bytes) -> bytes:
        """Return 16 bytes that identify a request and its body.

        HMAC, because a body may hold a security code or a PIN: 1,000 guesses would find a security code in a plain hash.
        """
        return _hmac(self._fixed().fingerprint, request, body)[:FINGERPRINT_BYTES]

    def cvv(self, pan: str, expiration_mmyy: str, service_code: str, kind: CvvKind = "CVV2") -> str:
        """Return the three-digit security code of a card, derived from number, expiration and service code.

        The code is never stored.
        """
        digest = _hmac(self._fixed().cvv, kind, pan, expiration_mmyy, service_code)
        # 256 bits modulo 1,000: the probabilities of two codes differ by less than one part in 2^246.
        return f"{int.from_bytes(digest) % 1000:03d}"

    def __repr__(self) -> str:
        return f"Vault(key_ids={sorted(self._sealing_keys)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a vault is neither pickled nor copied")

    def _fixed(self) -> _FixedKeys:
        if self._fixed_keys is None:
            self.reload()
        assert self._fixed_keys is not None
        return self._fixed_keys

    def _newest(self) -> _SealingKey:
        if self._newest_key is None:
            self.reload()
        assert self._newest_key is not None
        return self._newest_key

    def _key_of(self, envelope: bytes) -> _SealingKey:
        """Return the key that sealed an envelope. Raises VaultError."""
        if len(envelope) <= NONCE_BYTES + TAG_BYTES:
            raise VaultError("the envelope is too short")
        key_id = envelope[0]
        if key_id not in self._sealing_keys:
            # Another process has added the key, or the envelope is damaged.
            self.reload()
            if key_id not in self._sealing_keys:
                raise VaultError(f"the envelope was sealed under key {key_id}, which the database does not have")
        return self._sealing_keys[key_id]

    def _sealed(self, key: _SealingKey, cipher: AESGCM, text: str, owner: bytes) -> bytes:
        draw = self._draw_nonce()
        assert len(draw) == NONCE_BYTES, "a nonce source draws twelve bytes"
        # GCM is broken if a nonce encrypts two texts, and a seeded run repeats its draws after a restart. The nonce also depends
        # on the text and its owner, so it repeats only if the whole envelope does.
        nonce = _hmac(key.nonce_key, draw, owner, text)[:NONCE_BYTES]
        return key.prefix + nonce + cipher.encrypt(nonce, text.encode(), owner + key.prefix)

    def _opened(self, cipher: AESGCM, envelope: bytes, owner: bytes) -> str:
        prefix, nonce, sealed = envelope[:1], envelope[1 : 1 + NONCE_BYTES], envelope[1 + NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, sealed, owner + prefix).decode()
        except InvalidTag:
            raise VaultError("the envelope is damaged, or belongs to another owner or database") from None


def _sealing_key(data_keys: DataKeys, key_id: int) -> _SealingKey:
    pan, seal, nonce = (data_keys.keys[KeyName(key_id, purpose)] for purpose in SEALING_PURPOSES)
    return _SealingKey(bytes([key_id]), AESGCM(pan), AESGCM(seal), nonce)


def _owner_of(name: KeyName) -> bytes:
    return _packed("data key", str(name.key_id), name.purpose)


def _derived(master_key: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"cardwright v1 {purpose}".encode()).derive(master_key)


def _hmac(key: bytes, *parts: str | bytes) -> bytes:
    return hmac.digest(key, _packed(*parts), "sha256")


def _packed(*parts: str | bytes) -> bytes:
    """Return the parts with their lengths, so that ("ab", "c") and ("a", "bc") differ."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(4) + part for part in encoded)
