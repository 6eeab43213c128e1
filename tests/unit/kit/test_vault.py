"""Vault: it decrypts card numbers and secrets only for their owner, and derives the same digests and codes each time."""

import copy
import hashlib
import logging
import pickle
import threading
from collections import Counter
from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from cardwright.kit.vault import (
    FIRST_KEY_ID,
    FIXED_PURPOSES,
    KEY_BYTES,
    NONCE_BYTES,
    SEALING_PURPOSES,
    CvvKind,
    DataKeys,
    KeyName,
    MasterKey,
    NonceSource,
    Vault,
    VaultError,
    counted_nonces,
    random_keys,
    random_nonce,
)

MASTER = bytes(range(32))


def vault_of(master_key: bytes, nonce_source: NonceSource = random_nonce) -> Vault:
    """Return the vault with the keys that are derived from a master key."""
    return Vault(MasterKey(master_key).derived_keys, nonce_source)


VAULT = vault_of(MASTER)
PAN = "1111110000004326"
KINDS: tuple[CvvKind, ...] = ("CVV2", "ICVV")

pans = st.text("0123456789", min_size=12, max_size=19)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(pans, names, names)
def test_a_card_number_comes_back(pan: str, program: str, card_token: str) -> None:
    """A number encrypted for a program and card decrypts to the same number."""
    assert VAULT.decrypt_pan(VAULT.encrypt_pan(pan, program, card_token), program, card_token) == pan


@given(st.data(), pans)
def test_no_byte_can_be_changed(data: st.DataObject, pan: str) -> None:
    """An envelope with a changed byte or without its end raises VaultError."""
    envelope = bytearray(VAULT.encrypt_pan(pan, "one", "card"))
    index = data.draw(st.integers(0, len(envelope) - 1))
    with pytest.raises(VaultError):
        VAULT.decrypt_pan(bytes(envelope[:index]), "one", "card")
    envelope[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VaultError):
        VAULT.decrypt_pan(bytes(envelope), "one", "card")


def test_every_byte_is_guarded() -> None:
    """An envelope with a changed byte at any position raises VaultError. This test covers every position."""
    envelope = VAULT.encrypt_pan(PAN, "one", "card")
    for index in range(len(envelope)):
        with pytest.raises(VaultError):
            VAULT.decrypt_pan(envelope[:index] + bytes([envelope[index] ^ 1]) + envelope[index + 1 :], "one", "card")


@pytest.mark.parametrize(("program", "card_token"), [("two", "card"), ("one", "other"), ("onec", "ard"), ("", "onecard")])
def test_an_envelope_opens_only_for_its_owner(program: str, card_token: str) -> None:
    """Another program, another card, and the same letters divided differently raise VaultError."""
    with pytest.raises(VaultError, match="another owner"):
        VAULT.decrypt_pan(VAULT.encrypt_pan(PAN, "one", "card"), program, card_token)


def test_another_master_key_opens_nothing() -> None:
    """A vault with another master key cannot decrypt envelopes, neither of card numbers nor of other secrets."""
    stranger = vault_of(bytes(32))
    with pytest.raises(VaultError):
        stranger.decrypt_pan(VAULT.encrypt_pan(PAN, "one", "card"), "one", "card")
    with pytest.raises(VaultError):
        stranger.open(VAULT.seal("text", "context"), "context")


def test_the_envelope_is_aes_gcm_under_a_key_id() -> None:
    """An envelope is the key id, a nonce of NONCE_BYTES and the ciphertext with its tag. It does not contain the number."""
    envelope = VAULT.encrypt_pan(PAN, "one", "card")
    assert envelope[0] == FIRST_KEY_ID
    assert len(envelope) == 1 + NONCE_BYTES + len(PAN) + 16
    assert PAN.encode() not in envelope
    with pytest.raises(VaultError, match="key 7"):
        VAULT.decrypt_pan(b"\x07" + envelope[1:], "one", "card")


def test_error_texts_have_no_secret() -> None:
    """The error has neither the number nor a visible cause that could show it."""
    with pytest.raises(VaultError) as refused:
        VAULT.decrypt_pan(VAULT.encrypt_pan(PAN, "one", "card"), "one", "wrong-card")
    assert PAN not in str(refused.value)
    assert refused.value.__suppress_context__


def test_each_envelope_has_its_own_nonce() -> None:
    """1,000 envelopes of one number have different nonces, with the system's randomness and with a seeded source."""
    for vault in (VAULT, vault_of(MASTER, counted_nonces(42))):
        nonces = {vault.encrypt_pan(PAN, "one", "card")[1 : 1 + NONCE_BYTES] for _ in range(1_000)}
        assert len(nonces) == 1_000


def test_a_seeded_run_gives_the_same_bytes() -> None:
    """Two runs with one seed give equal bytes, and another seed gives different ones."""
    first, again, other = (vault_of(MASTER, counted_nonces(seed)) for seed in (42, 42, 43))
    for number in range(10):
        pan = f"{number:016d}"
        envelope = first.encrypt_pan(pan, "one", "card")
        assert envelope == again.encrypt_pan(pan, "one", "card")
        assert envelope != other.encrypt_pan(pan, "one", "card")


def test_a_repeated_draw_does_not_repeat_a_nonce() -> None:
    """Different texts get different nonces even if the source repeats its bytes. A repeated nonce would break GCM."""
    vault = vault_of(MASTER, lambda: bytes(NONCE_BYTES))
    envelopes = [vault.encrypt_pan(f"{number:016d}", "one", "card") for number in range(100)]
    envelopes += [vault.encrypt_pan(PAN, "one", f"card {number}") for number in range(100)]
    assert max(Counter(envelope[1 : 1 + NONCE_BYTES] for envelope in envelopes).values()) == 1


def test_counted_nonces_are_unique_between_threads() -> None:
    """Four concurrent threads never draw the same nonce."""
    draw, drawn = counted_nonces(1), list[bytes]()
    threads = [threading.Thread(target=lambda: drawn.extend([draw() for _ in range(5_000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 20_000


def test_digests() -> None:
    """A digest has 32 bytes, is stable, and differs by number, program, master key and division of the letters."""
    digest = VAULT.pan_digest(PAN, "one")
    assert len(digest) == 32
    assert digest == vault_of(MASTER).pan_digest(PAN, "one")
    others = [VAULT.pan_digest(PAN, "two"), VAULT.pan_digest(PAN[::-1], "one"), vault_of(bytes(32)).pan_digest(PAN, "one")]
    assert digest not in others
    assert VAULT.credential_digest("ab", "c") != VAULT.credential_digest("a", "bc")
    assert VAULT.credential_digest("app", "token") == VAULT.credential_digest("app", "token")


def test_fingerprint_needs_the_key() -> None:
    """A fingerprint depends on the kind of request, the body and the master key, and is not a plain hash of the body."""
    made = VAULT.fingerprint("clearing", b"{}")
    assert made == vault_of(MASTER).fingerprint("clearing", b"{}")
    assert made not in (VAULT.fingerprint("reversal", b"{}"), VAULT.fingerprint("clearing", b"[]"))
    assert made != vault_of(bytes(32)).fingerprint("clearing", b"{}")
    assert made not in {hashlib.new(name, b"{}").digest()[: len(made)] for name in ("sha256", "sha1", "md5", "blake2b")}


def test_each_purpose_has_its_own_key() -> None:
    """Digests for lookups and credentials have different keys, and so have sealed texts and card numbers."""
    assert VAULT.pan_digest("words", "more") != VAULT.credential_digest("more", "words")
    with pytest.raises(VaultError):
        VAULT.open(VAULT.encrypt_pan(PAN, "one", "card"), "one")
    derived = MasterKey(MASTER).derived_keys().keys
    assert len({MASTER, *derived.values()}) == len(derived) + 1 == len(SEALING_PURPOSES) + len(FIXED_PURPOSES) + 1


@pytest.mark.parametrize(
    "other",
    [
        ("1111110000004334", "0130", "101", "CVV2"),
        (PAN, "0230", "101", "CVV2"),
        (PAN, "0130", "201", "CVV2"),
        (PAN, "0130", "101", "ICVV"),
    ],
)
def test_a_security_code_is_bound_to_its_card(other: tuple[str, str, str, str]) -> None:
    """Number, expiration, service code and kind each change the code. With this master key no codes are equal by chance."""
    assert VAULT.cvv(PAN, "0130", "101") == VAULT.cvv(PAN, "0130", "101", "CVV2")
    assert VAULT.cvv(*other) != VAULT.cvv(PAN, "0130", "101")  # type: ignore[arg-type]


def test_security_codes_spread_evenly() -> None:
    """Codes have three digits, and those of 20,000 cards are evenly distributed (chi squared, 999 degrees of freedom)."""
    codes = Counter(VAULT.cvv(f"{number:016d}", "0130", "101") for number in range(20_000))
    assert all(len(code) == 3 and code.isdigit() for code in codes)
    assert 850 < sum((codes[f"{code:03d}"] - 20) ** 2 / 20 for code in range(1_000)) < 1_150


@given(names, names)
def test_other_secrets_come_back(text: str, context: str) -> None:
    """A sealed text opens in its context and raises VaultError in another one."""
    envelope = VAULT.seal(text, context)
    assert VAULT.open(envelope, context) == text
    with pytest.raises(VaultError):
        VAULT.open(envelope, context + "x")


def test_master_keys_are_64_hexadecimal_digits() -> None:
    """A hexadecimal master key is the same as its bytes. Any other text raises a ValueError without the text."""
    assert MasterKey.from_hex(MASTER.hex()).check() == MasterKey(MASTER).check()
    for wrong in ("", "00", "zz" * 32, "0" * 66):
        with pytest.raises(ValueError, match="64 hexadecimal digits") as refused:
            MasterKey.from_hex(wrong)
        assert not wrong or wrong not in str(refused.value)
        assert refused.value.__suppress_context__


def test_a_vault_shows_no_key(caplog: pytest.LogCaptureFixture) -> None:
    """The ``repr`` of a vault, of a master key and of data keys, and a log line with them, have no key bytes."""
    vault, master_key = vault_of(MASTER), MasterKey(MASTER)
    vault.reload()
    logging.getLogger().warning("%r %s %s", vault, master_key, master_key.derived_keys())
    assert caplog.messages == ["Vault(key_ids=[1]) MasterKey() DataKeys(sealing_id=1)"]


def test_a_vault_does_not_travel() -> None:
    """A vault and a master key cannot be pickled or copied, and have no ``__dict__``."""
    for keeper in (VAULT, MasterKey(MASTER)):
        for carry in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="neither pickled nor copied"):
                carry(keeper)
        assert not hasattr(keeper, "__dict__")


def test_the_format_is_frozen() -> None:
    """An envelope decrypts with a key derived by HKDF, and not with the master key. Stored envelopes must stay readable."""
    envelope = VAULT.seal("text", "context")
    nonce, sealed = envelope[1 : 1 + NONCE_BYTES], envelope[1 + NONCE_BYTES :]
    owner = b"\x00\x00\x00\x04seal\x00\x00\x00\x07context\x01"
    key = HKDF(SHA256(), 32, salt=None, info=b"cardwright v1 seal").derive(MASTER)
    assert AESGCM(key).decrypt(nonce, sealed, owner) == b"text"
    with pytest.raises(InvalidTag):
        AESGCM(MASTER).decrypt(nonce, sealed, owner)


def test_digests_and_codes_are_frozen() -> None:
    """Digests, fingerprints and security codes have fixed values, because rows and cards contain them."""
    assert VAULT.pan_digest(PAN, "one").hex() == "7b3c980a7c3e9db33f1a1906ee8365e5d9a8f6973357c2a762e04468bec84042"
    assert VAULT.credential_digest("app", "token").hex() == "76a8250a59d7f71d0b14a13ef2c2d5561f7c8f14a474bc3f9971eeb5008f8775"
    assert VAULT.fingerprint("clearing", b"{}").hex() == "bf1702a3454ab2f25af84389a3696f70"
    assert [VAULT.cvv(PAN, "0130", "101", kind) for kind in KINDS] == ["789", "581"]


# --- Data keys ----------------------------------------------------------------------------


def test_a_wrapped_key_comes_back_under_its_name_only() -> None:
    """A data key unwraps under its id and purpose. Another id, purpose or master key, and any changed byte, raise VaultError."""
    name, key = KeyName(2, "pan"), bytes(range(100, 132))
    master_key = MasterKey(MASTER)
    wrapped = master_key.wrap(name, key)
    assert master_key.unwrap(name, wrapped) == key
    assert key not in wrapped
    for other in (KeyName(3, "pan"), KeyName(2, "seal")):
        with pytest.raises(VaultError, match="damaged, or wrapped under another master key"):
            master_key.unwrap(other, wrapped)
    with pytest.raises(VaultError):
        MasterKey(bytes(32)).unwrap(name, wrapped)
    for index in range(len(wrapped)):
        with pytest.raises(VaultError):
            master_key.unwrap(name, wrapped[:index] + bytes([wrapped[index] ^ 1]) + wrapped[index + 1 :])
        with pytest.raises(VaultError):
            master_key.unwrap(name, wrapped[:index])


def test_wrapped_keys_have_different_nonces() -> None:
    """Different keys, and one key under different names, are wrapped with different nonces. A repeated nonce would break GCM."""
    master_key = MasterKey(MASTER)
    wrapped = [master_key.wrap(KeyName(1, "pan"), number.to_bytes(KEY_BYTES)) for number in range(100)]
    wrapped += [master_key.wrap(KeyName(number, "seal"), bytes(KEY_BYTES)) for number in range(100)]
    assert len({text[:NONCE_BYTES] for text in wrapped}) == 200


def test_the_key_check_is_frozen() -> None:
    """The key check is the value that earlier versions stored, so that their databases open, and it differs by master key."""
    assert MasterKey(MASTER).check() == VAULT.pan_digest("master key", "master key").hex()
    assert MasterKey(MASTER).check() == "ff2f3145a49d78f8c3d090de33ac7cacbe087083cdf16d12bd385f95fff962cf"
    assert MasterKey(MASTER).check() != MasterKey(bytes(32)).check()


class Keys:
    """The data keys of a database, to which a second key can be added."""

    def __init__(self) -> None:
        self.keys = MasterKey(MASTER).derived_keys()
        self.loads = 0

    def load(self) -> DataKeys:
        self.loads += 1
        return self.keys

    def add(self, *, used: bool) -> None:
        """Add sealing keys with the next id."""
        key_id = max(self.keys.sealing_ids) + 1
        added = random_keys(key_id, SEALING_PURPOSES)
        self.keys = DataKeys({**self.keys.keys, **added}, key_id if used else self.keys.sealing_id)


def test_an_envelope_under_an_unknown_key_loads_the_keys() -> None:
    """A vault that meets a new key id loads the keys once, opens the envelope, and seals under the new key from then on."""
    keys = Keys()
    writer, reader = Vault(keys.load), Vault(keys.load)
    old = reader.seal("before", "context")
    keys.add(used=True)
    writer.reload()
    new, pan = writer.seal("after", "context"), writer.encrypt_pan(PAN, "one", "card")
    assert (old[0], new[0], pan[0]) == (1, 2, 2)
    loads = keys.loads
    assert reader.sealing_id == 1
    assert reader.open(new, "context") == "after"
    assert reader.decrypt_pan(pan, "one", "card") == PAN
    assert keys.loads == loads + 1
    assert reader.seal("text", "context")[0] == reader.sealing_id == 2
    assert writer.open(old, "context") == reader.open(old, "context") == "before"


def test_a_prepared_key_opens_but_does_not_seal() -> None:
    """A key that is not in use yet is loaded, so that its envelopes open, and the key before it still seals."""
    keys = Keys()
    keys.add(used=False)
    vault = Vault(keys.load)
    assert vault.seal("text", "context")[0] == 1
    assert vault.key_ids == {1, 2}
    keys.keys = DataKeys(keys.keys.keys, 2)
    vault.reload()
    assert vault.seal("text", "context")[0] == 2


def test_digests_and_codes_do_not_depend_on_the_sealing_key() -> None:
    """New sealing keys leave digests, fingerprints and security codes as they are."""
    keys = Keys()
    keys.add(used=True)
    vault = Vault(keys.load)
    assert vault.pan_digest(PAN, "one") == VAULT.pan_digest(PAN, "one")
    assert vault.credential_digest("app", "token") == VAULT.credential_digest("app", "token")
    assert vault.fingerprint("clearing", b"{}") == VAULT.fingerprint("clearing", b"{}")
    assert vault.cvv(PAN, "0130", "101") == VAULT.cvv(PAN, "0130", "101")


def test_a_vault_without_keys_passes_the_failure_on() -> None:
    """If the keys cannot be loaded, each method raises the exception of the load, and a later call loads them."""
    keys, failures = Keys(), [OSError("away")] * 5

    def load() -> DataKeys:
        if failures:
            raise failures.pop()
        return keys.load()

    vault = Vault(load)
    envelope = VAULT.seal("text", "context")
    uses: tuple[Callable[[], object], ...] = (
        lambda: vault.seal("text", "context"), lambda: vault.open(envelope, "context"), lambda: vault.pan_digest(PAN, "one"),
        lambda: vault.cvv(PAN, "0130", "101"), lambda: vault.fingerprint("clearing", b"{}"),
    )  # fmt: skip
    for use in uses:
        with pytest.raises(OSError, match="away"):
            use()
    assert vault.open(envelope, "context") == "text"
    assert keys.loads == 1
