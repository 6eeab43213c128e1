"""Passphrases: only the passphrase that sealed a text opens it."""

import pytest

from cardwright.kit.passphrase import NONCE_BYTES, SALT_BYTES, WrongPassphrase, seal, unseal

PASSPHRASE = "correct horse bättery"


def test_passphrase_opens_what_it_sealed() -> None:
    """The passphrase opens its envelope. The envelope does not contain the text, and two envelopes of a text differ."""
    envelope = seal("the key", PASSPHRASE)
    assert unseal(envelope, PASSPHRASE) == "the key"
    assert b"the key" not in envelope
    assert seal("the key", PASSPHRASE) != envelope


def test_other_passphrase_opens_nothing() -> None:
    """Another passphrase, a changed byte of any part and a short envelope are refused, and the error contains no text."""
    envelope = seal("the key", PASSPHRASE)
    changed = [bytearray(envelope) for _ in range(3)]
    for copy, place in zip(changed, (0, SALT_BYTES, SALT_BYTES + NONCE_BYTES), strict=True):
        copy[place] ^= 1
    tries = [(envelope, f"{PASSPHRASE} "), *((bytes(copy), PASSPHRASE) for copy in changed), (envelope[:20], PASSPHRASE)]
    for sealed, passphrase in tries:
        with pytest.raises(WrongPassphrase, match=r"^the passphrase is wrong$"):
            unseal(sealed, passphrase)
